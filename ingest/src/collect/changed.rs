//! Lists that can be asked for what changed since a time, whatever their order: all pages are read, what is new is told once.
//!
//! Becoming visible is not in the order of times, so that the last minutes are asked for again; what was had of them is known by
//! id and time. A window that has too many pages is halved. A list that cannot be cut is walked in several turns; the page where
//! a turn stopped is read again in the next, because what is taken off a list moves the rest of it up. A list in which nothing was
//! new is asked for with its entity tag, where it has one.

use std::time::Duration;

use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cursors::moved;
use super::http::{Api, Listed};
use super::{CollectError, Cursors, PAGE_BYTES, Page};

/// What is asked for again.
const OVERLAP: Duration = Duration::from_secs(120);
/// Pages read at a time.
const PAGES_MAX: usize = 30;
/// The widest window: GitLab answers for thirty days at most.
const WIDEST: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Narrower than this a window is not halved.
const NARROW: Duration = Duration::from_secs(2);
/// Elements of a page as it is asked for.
const PER_PAGE: usize = 100;
/// Elements of a page at most.
const ELEMENTS_MAX: usize = 1_000;

/// How a list is asked.
#[derive(Debug)]
pub(super) struct Question {
    /// Path and query without the times.
    pub(super) path: String,
    /// Parameter of the earliest time.
    pub(super) after: &'static str,
    /// Parameter of the latest time, where there is one.
    pub(super) before: Option<&'static str>,
    /// Member of an element that says its time.
    pub(super) time: &'static str,
}

/// An element: its time, its name by id and time, its bytes, its JSON.
type Element = (Timestamp, String, Bytes, Value);

/// What was had of a window.
enum Window {
    /// All of it: what was asked first, and the tag of an answer to which nothing can be added without changing it.
    All { all: Vec<Element>, asked: String, etag: Option<String> },
    /// Its first pages, and which was the last of them: it cannot be cut.
    Begun { all: Vec<Element>, page: String },
    /// It is what it was when nothing in it was new.
    Same,
    /// That is too much at a time.
    TooMuch,
}

/// How far a list was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changed {
    from: Timestamp,
    /// What was had since then, by id and time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    had: Vec<String>,
    /// The walk that goes on, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    walk: Option<Walk>,
}

/// A list that is walked in several turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Walk {
    /// Path and query of the page that was read last.
    page: String,
    /// When it began: what became visible on pages that had been read by then is asked for again.
    began: Timestamp,
    /// The end of its window; without one it goes to the present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    newest: Timestamp,
    /// What was had that will be asked for again, by time and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    had: Vec<(Timestamp, String)>,
}

impl Walk {
    /// From when on is asked next: up to a window's end everything is had then; at the end of all, only what was visible.
    fn next_from(&self) -> Timestamp {
        self.to.unwrap_or(self.newest.min(self.began)).minus(OVERLAP)
    }

    fn add(&mut self, elements: &[Element]) {
        self.newest = elements.iter().map(|(at, ..)| *at).fold(self.newest, Timestamp::max);
        let from = self.next_from();
        self.had.retain(|(at, _)| *at >= from);
        for (at, name, ..) in elements.iter().filter(|(at, ..)| *at >= from) {
            if self.had.iter().all(|(_, known)| known != name) {
                self.had.push((*at, name.clone()));
            }
        }
    }
}

/// What a turn found.
#[derive(Debug, Default)]
struct Looked {
    /// Oldest first.
    new: Vec<(Bytes, Value)>,
    /// Whether there is more now.
    more: bool,
    /// What cannot be told any more.
    lost: Option<String>,
}

impl Changed {
    const fn since(from: Timestamp) -> Self {
        Self { from, had: Vec::new(), walk: None }
    }

    /// What changed since the cursor `stream`, or since `since` before the first time; `page` moves it.
    pub(super) async fn follow(
        api: &Api,
        question: &Question,
        (stream, since): (String, Duration),
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(Vec<(Bytes, Value)>, bool), CollectError> {
        let known: Option<Self> = cursors.read(&stream)?;
        let mut changed = known.clone().unwrap_or_else(|| Self::since(now.minus(since)));
        let looked = changed.look(api, question, now).await?;
        page.lost.extend(looked.lost.map(|lost| format!("{stream}: {lost}")));
        if known.as_ref() != Some(&changed) {
            page.cursors.push(moved(&stream, &changed)?);
        }
        Ok((looked.new, looked.more))
    }

    /// What changed, oldest first, and whether there is more now.
    async fn look(&mut self, api: &Api, question: &Question, now: Timestamp) -> Result<Looked, CollectError> {
        if let Some(walk) = self.walk.take() {
            return self.walk_on(walk, api, question).await;
        }
        let mut to = now;
        if question.before.is_some() && self.from.plus(WIDEST) < now {
            to = self.from.plus(WIDEST);
        }
        let (all, asked, etag) = loop {
            match self.window(api, question, to, now).await? {
                Window::All { all, asked, etag } => break (all, asked, etag),
                Window::Begun { all, page } => {
                    let end = (question.before.is_some() && to < now).then_some(to);
                    let mut walk = Walk { page, began: now, to: end, newest: self.from, had: Vec::new() };
                    walk.add(&all);
                    self.walk = Some(walk);
                    return Ok(Looked { new: self.new_of(all), more: true, lost: None });
                }
                Window::Same => return Ok(Looked::default()),
                Window::TooMuch => {}
            }
            to = self.from.plus(Duration::from_micros(u64::try_from(to.micros_since(self.from)).unwrap_or(0) / 2));
        };
        let last = to >= now;
        let newest = all.iter().map(|(at, ..)| *at).max().unwrap_or(self.from);
        // Up to a window's end everything is had; at the end of all, only what is visible by now.
        let from = if last { newest.minus(OVERLAP) } else { to.minus(OVERLAP) }.max(self.from);
        let mut had: Vec<String> = if from == self.from { self.had.clone() } else { Vec::new() };
        for (_, name, ..) in all.iter().filter(|(at, ..)| *at >= from) {
            if !had.contains(name) {
                had.push(name.clone());
            }
        }
        let new = self.new_of(all);
        // Whatever becomes of what was found: only what brought nothing may be passed over.
        let idle = new.is_empty() && from == self.from && had == self.had;
        api.etags.set(&question.path, &asked, etag.filter(|_| idle && last), now);
        (self.from, self.had) = (from, had);
        Ok(Looked { new, more: !last, lost: None })
    }

    /// What was not had before, oldest first.
    fn new_of(&self, mut all: Vec<Element>) -> Vec<(Bytes, Value)> {
        all.retain(|(_, name, ..)| !self.had.contains(name));
        all.sort_by_key(|(at, ..)| *at);
        all.into_iter().map(|(_, _, bytes, element)| (bytes, element)).collect()
    }

    /// Goes on with a walk for a turn.
    async fn walk_on(&mut self, mut walk: Walk, api: &Api, question: &Question) -> Result<Looked, CollectError> {
        let (mut looked, mut all) = (Looked::default(), Vec::new());
        let (mut pages, mut bytes, mut next) = (0, 0, Some(walk.page.clone()));
        while let Some(path) = next.take() {
            let listed = match api.get(&path).await {
                Ok(listed) => listed,
                Err(error) if error.is_no_page() => {
                    looked.lost =
                        Some(format!("what was listed since {} cannot be walked to its end: {error}", self.from));
                    break;
                }
                // What was read counts, if it is more than the page that is read again.
                Err(_) if pages > 1 => {
                    looked.more = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            pages += 1;
            bytes += listed.body.len();
            all.extend(elements(&listed, question)?);
            walk.page = path;
            next = listed.next;
            if next.is_some() && pages > 1 && (pages >= PAGES_MAX || bytes > PAGE_BYTES) {
                looked.more = true;
                break;
            }
        }
        walk.add(&all);
        looked.new = self.new_of(all);
        if looked.more {
            self.walk = Some(walk);
            return Ok(looked);
        }
        let from = walk.next_from().max(self.from);
        let mut had = if from == self.from { std::mem::take(&mut self.had) } else { Vec::new() };
        for (_, name) in walk.had.into_iter().filter(|(at, _)| *at >= from) {
            if !had.contains(&name) {
                had.push(name);
            }
        }
        looked.more = walk.to.is_some();
        (self.from, self.had) = (from, had);
        Ok(looked)
    }

    async fn window(
        &self,
        api: &Api,
        question: &Question,
        to: Timestamp,
        now: Timestamp,
    ) -> Result<Window, CollectError> {
        let joint = if question.path.contains('?') { '&' } else { '?' };
        let mut path = format!("{}{joint}{}={}", question.path, question.after, escaped(self.from));
        if let Some(before) = question.before.filter(|_| to < now) {
            path.push_str(&format!("&{before}={}", escaped(to)));
        }
        let asked = path.clone();
        let known = api.etags.get(&question.path, &asked, now);
        let mut etag = None;
        let narrow = to.micros_since(self.from) <= engine::time::micros(NARROW);
        let can_be_cut = question.before.is_some() && !narrow;
        let (mut all, mut next, mut pages, mut bytes) = (Vec::new(), Some(path), 0, 0);
        while let Some(path) = next {
            if pages == PAGES_MAX && can_be_cut {
                return Ok(Window::TooMuch);
            }
            let known = known.as_deref().filter(|_| pages == 0);
            let listed = match known {
                Some(known) => match api.list(&path, Some(known)).await? {
                    Some(listed) => listed,
                    None => return Ok(Window::Same),
                },
                None => api.get(&path).await?,
            };
            pages += 1;
            bytes += listed.body.len();
            all.extend(elements(&listed, question)?);
            // A tag is over the page alone: behind a full one another may begin without changing it.
            let full = listed.per_page.unwrap_or(PER_PAGE).min(PER_PAGE);
            etag = listed.etag.filter(|_| pages == 1 && listed.next.is_none() && all.len() < full);
            next = listed.next;
            if next.is_some() && !can_be_cut && (pages >= PAGES_MAX || bytes > PAGE_BYTES) {
                return Ok(Window::Begun { all, page: path });
            }
        }
        Ok(Window::All { all, asked, etag })
    }
}

fn elements(listed: &Listed, question: &Question) -> Result<Vec<Element>, CollectError> {
    let one = |(bytes, element): (Bytes, Value)| {
        let at = element.get(question.time).and_then(Value::as_str).and_then(Timestamp::parse);
        let at = at.ok_or_else(|| listed.wrong("an entry has no time"))?;
        let id = element.get("id").map(ToString::to_string).unwrap_or_default();
        Ok((at, format!("{id}@{at}"), bytes, element))
    };
    listed.elements(None, ELEMENTS_MAX)?.into_iter().map(one).collect()
}

fn escaped(time: Timestamp) -> String {
    time.to_string().replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::script::{Script, at};

    const NOW: i64 = 1_795_694_400;

    fn question() -> Question {
        Question { path: "/list?per_page=100".into(), after: "after", before: Some("before"), time: "at" }
    }

    fn element(id: u64, secs: i64) -> String {
        format!(r#"{{"id":{id},"at":"{}"}}"#, at(secs))
    }

    async fn look(script: &std::sync::Arc<Script>, changed: &mut Changed) -> (Vec<u64>, bool) {
        let found = changed.look(&script.api(), &question(), at(NOW)).await.unwrap();
        (found.new.iter().map(|(_, element)| element["id"].as_u64().unwrap()).collect(), found.more)
    }

    fn path(from: i64) -> String {
        format!("/list?per_page=100&after={}", escaped(at(from)))
    }

    #[tokio::test]
    async fn what_is_new_is_told_once_whatever_the_order() {
        let script = Script::new();
        let mut changed = Changed::since(at(NOW - 3_600));
        let next = [("link", "<https://api.example/list?page=2>; rel=\"next\"")];
        script.json_with(&path(NOW - 3_600), &format!("[{},{}]", element(3, NOW - 100), element(1, NOW - 900)), &next);
        script.json("/list?page=2", &format!("[{}]", element(2, NOW - 500)));
        assert_eq!(look(&script, &mut changed).await, (vec![1, 2, 3], false));
        // 4 becomes visible late, with a time before that of 3.
        script.json(&path(NOW - 220), &format!("[{},{}]", element(3, NOW - 100), element(4, NOW - 150)));
        assert_eq!(look(&script, &mut changed).await.0, [4]);
        assert_eq!(look(&script, &mut changed).await.0, [] as [u64; 0]);
        // The same one changed once more.
        script.json(&path(NOW - 220), &format!("[{}]", element(3, NOW - 50)));
        assert_eq!(look(&script, &mut changed).await.0, [3]);
    }

    #[tokio::test]
    async fn a_long_time_is_asked_for_in_windows() {
        let script = Script::new();
        let from = NOW - 10 * 86_400;
        let mut changed = Changed::since(at(from));
        let to = from + 7 * 86_400;
        let window = format!("{}&before={}", path(from), escaped(at(to)));
        script.json(&window, &format!("[{}]", element(1, from + 10)));
        assert_eq!(look(&script, &mut changed).await, (vec![1], true));
        script.json(&path(to - 120), &format!("[{}]", element(2, to + 10)));
        assert_eq!(look(&script, &mut changed).await, (vec![2], false));
    }

    #[tokio::test]
    async fn a_window_of_too_many_pages_is_halved() {
        let script = Script::new();
        let from = NOW - 1_000;
        let mut changed = Changed::since(at(from));
        script.json_with("/list?again", "[]", &[("link", "<https://api.example/list?again>; rel=\"next\"")]);
        script.json_with(&path(from), "[]", &[("link", "<https://api.example/list?again>; rel=\"next\"")]);
        let half = format!("{}&before={}", path(from), escaped(at(NOW - 500)));
        script.json(&half, &format!("[{}]", element(1, from + 10)));
        assert_eq!(look(&script, &mut changed).await, (vec![1], true));
    }

    /// A list of so many pages that cannot be cut, newest first, but for one that is out of its order.
    fn pages(script: &Script, from: i64, count: u64) {
        for number in 1..=count {
            let path = if number == 1 { path(from) } else { format!("/list?page={number}") };
            let ago = if number == count { 1 } else { 100 + i64::try_from(number).unwrap() };
            let next = format!("<https://api.example/list?page={}>; rel=\"next\"", number + 1);
            let next = [("link", next.as_str())];
            script.json_with(
                &path,
                &format!("[{}]", element(number, NOW - ago)),
                if number < count { &next } else { &[] },
            );
        }
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_cut_is_walked_in_several_turns() {
        let script = Script::new();
        let (from, question) = (NOW - 3_600, Question { before: None, ..question() });
        pages(&script, from, 75);
        let mut changed = Changed::since(at(from));
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..3 {
            let found = changed.look(&script.api(), &question, at(NOW + turn)).await.unwrap();
            assert_eq!((found.more, found.lost), (turn < 2, None));
            seen.extend(found.new.iter().map(|(_, element)| element["id"].as_u64().unwrap()));
            changed = serde_json::from_value(serde_json::to_value(&changed).unwrap()).unwrap();
        }
        assert_eq!(seen, (1..=75).collect());
        // What became visible meanwhile on a page that had been read is asked for, and nothing is told twice.
        assert_eq!(changed.from, at(NOW - 121));
        let late = format!("[{},{},{}]", element(75, NOW - 1), element(99, NOW - 20), element(1, NOW - 101));
        script.json(&path(NOW - 121), &late);
        let found = changed.look(&script.api(), &question, at(NOW + 9)).await.unwrap();
        assert_eq!(found.new.iter().map(|(_, element)| element["id"].as_u64().unwrap()).collect::<Vec<_>>(), [99]);
    }

    #[tokio::test]
    async fn a_walk_that_cannot_go_on_says_what_it_leaves_out() {
        let script = Script::new();
        let (from, question) = (NOW - 3_600, Question { before: None, ..question() });
        pages(&script, from, 75);
        let mut changed = Changed::since(at(from));
        assert!(changed.look(&script.api(), &question, at(NOW)).await.unwrap().more);
        script.answer("/list?page=41", 400, &[], "");
        let found = changed.look(&script.api(), &question, at(NOW)).await.unwrap();
        assert!(!found.more && found.lost.unwrap().contains("cannot be walked"));
        assert_eq!((changed.from, changed.walk), (at(NOW - 221), None), "what comes later is told");
    }

    #[tokio::test]
    async fn a_list_in_which_nothing_was_new_is_asked_for_with_its_tag() {
        let script = Script::new();
        let api = script.api();
        let mut changed = Changed::since(at(NOW - 3_600));
        let mut look = async |now: i64| {
            let found = changed.look(&api, &question(), at(now)).await.unwrap().new;
            let tags =
                script.asked().iter().map(|(_, headers)| headers.contains_key("if-none-match")).collect::<Vec<_>>();
            (found.iter().map(|(_, element)| element["id"].as_u64().unwrap()).collect::<Vec<_>>(), tags)
        };
        let list = |path: &str, tag: &str, elements: &[String], more: &[(&'static str, &str)]| {
            let headers = [&[("etag", tag)][..], more].concat();
            script.json_with(path, &format!("[{}]", elements.join(",")), &headers);
        };
        let one = element(1, NOW - 60);
        for (path, tag) in [(path(NOW - 3_600), "W/\"a\""), (path(NOW - 180), "W/\"b\"")] {
            list(&path, tag, std::slice::from_ref(&one), &[]);
        }
        assert_eq!(look(NOW).await, (vec![1], vec![false]));
        // Nothing is new: the next look may be told so.
        assert_eq!(look(NOW).await, (vec![], vec![false]));
        assert_eq!(look(NOW).await, (vec![], vec![true]));
        // What is new is told, and the look after it asks for all again.
        list(&path(NOW - 180), "W/\"c\"", &[one.clone(), element(2, NOW - 50)], &[]);
        list(&path(NOW - 170), "W/\"c\"", &[one.clone(), element(2, NOW - 50)], &[]);
        assert_eq!(look(NOW).await, (vec![2], vec![true]));
        assert_eq!(look(NOW).await, (vec![], vec![false]));
        assert_eq!(look(NOW).await, (vec![], vec![true]));
        // Nobody is believed for ever.
        assert_eq!(look(NOW + 3_600).await, (vec![], vec![false]));
        // A page that is full looks the same when another begins behind it.
        let full = [("x-per-page", "2")];
        list(&path(NOW - 170), "W/\"d\"", &[one.clone(), element(2, NOW - 50)], &full);
        assert_eq!(look(NOW + 3_600).await, (vec![], vec![true]));
        let next = [full[0], ("link", "<https://api.example/list?page=2>; rel=\"next\"")];
        list(&path(NOW - 170), "W/\"d\"", &[one, element(2, NOW - 50)], &next);
        script.json("/list?page=2", &format!("[{}]", element(3, NOW - 40)));
        assert_eq!(look(NOW + 3_600).await, (vec![3], vec![false, false]));
    }
}
