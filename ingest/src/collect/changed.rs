//! Lists that can be asked for what changed since a time, whatever their order: all pages are read, what is new is told once.
//!
//! Becoming visible is not in the order of times, so that the last minutes are asked for again; what was had of them is known by
//! id and time. A window that has too many pages is halved. A list in which nothing was new is asked for with its entity tag, where
//! it has one.

use std::time::Duration;

use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cursors::moved;
use super::http::Api;
use super::{CollectError, Cursors, Page};

/// What is asked for again.
const OVERLAP: Duration = Duration::from_secs(120);
/// Pages read at a time.
const PAGES_MAX: usize = 30;
/// Pages read at a time of a list that cannot be cut.
const PAGES_LAST: usize = 300;
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

/// What was had of a window.
enum Window {
    /// All of it: what was asked first, and the tag of an answer to which nothing can be added without changing it.
    All { all: Vec<(Timestamp, String, Bytes, Value)>, asked: String, etag: Option<String> },
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
}

impl Changed {
    const fn since(from: Timestamp) -> Self {
        Self { from, had: Vec::new() }
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
        let found = changed.look(api, question, now).await?;
        if known.as_ref() != Some(&changed) {
            page.cursors.push(moved(&stream, &changed)?);
        }
        Ok(found)
    }

    /// What changed, oldest first, and whether there is more now.
    async fn look(
        &mut self,
        api: &Api,
        question: &Question,
        now: Timestamp,
    ) -> Result<(Vec<(Bytes, Value)>, bool), CollectError> {
        let mut to = now;
        if question.before.is_some() && self.from.plus(WIDEST) < now {
            to = self.from.plus(WIDEST);
        }
        let (all, asked, etag) = loop {
            match self.window(api, question, to, now).await? {
                Window::All { all, asked, etag } => break (all, asked, etag),
                Window::Same => return Ok((Vec::new(), false)),
                Window::TooMuch => {}
            }
            to = self.from.plus(Duration::from_micros(u64::try_from(to.micros_since(self.from)).unwrap_or(0) / 2));
        };
        let last = to >= now;
        let newest = all.iter().map(|(at, ..)| *at).max().unwrap_or(self.from);
        // Up to a window's end everything is had; at the end of all, only what is visible by now.
        let from = if last { newest.minus(OVERLAP) } else { to.minus(OVERLAP) }.max(self.from);
        let mut found = Vec::new();
        let mut had: Vec<String> = if from == self.from { self.had.clone() } else { Vec::new() };
        for (at, key, bytes, element) in all {
            let known = self.had.contains(&key);
            if at >= from && !had.contains(&key) {
                had.push(key);
            }
            if !known {
                found.push((at, bytes, element));
            }
        }
        // Whatever becomes of what was found: only what brought nothing may be passed over.
        let idle = found.is_empty() && from == self.from && had == self.had;
        api.etags.set(&question.path, &asked, etag.filter(|_| idle && last), now);
        (self.from, self.had) = (from, had);
        found.sort_by_key(|(at, ..)| *at);
        Ok((found.into_iter().map(|(_, bytes, element)| (bytes, element)).collect(), !last))
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
        let (mut all, mut next, mut pages) = (Vec::new(), Some(path), 0);
        while let Some(path) = next {
            if pages == PAGES_MAX {
                let narrow = to.micros_since(self.from) <= engine::time::micros(NARROW);
                if question.before.is_some() && !narrow {
                    return Ok(Window::TooMuch);
                }
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
            if pages > PAGES_LAST {
                return Err(listed.wrong("more is new than is read at a time: begin later (`since`)"));
            }
            for (bytes, element) in listed.elements(None, ELEMENTS_MAX)? {
                let at = element.get(question.time).and_then(Value::as_str).and_then(Timestamp::parse);
                let at = at.ok_or_else(|| listed.wrong("an entry has no time"))?;
                let id = element.get("id").map(ToString::to_string).unwrap_or_default();
                all.push((at, format!("{id}@{at}"), bytes, element));
            }
            // A tag is over the page alone: behind a full one another may begin without changing it.
            let full = listed.per_page.unwrap_or(PER_PAGE).min(PER_PAGE);
            etag = listed.etag.filter(|_| pages == 1 && listed.next.is_none() && all.len() < full);
            next = listed.next;
        }
        Ok(Window::All { all, asked, etag })
    }
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
        let (found, more) = changed.look(&script.api(), &question(), at(NOW)).await.unwrap();
        (found.iter().map(|(_, element)| element["id"].as_u64().unwrap()).collect(), more)
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

    #[tokio::test]
    async fn a_list_in_which_nothing_was_new_is_asked_for_with_its_tag() {
        let script = Script::new();
        let api = script.api();
        let mut changed = Changed::since(at(NOW - 3_600));
        let mut look = async |now: i64| {
            let (found, _) = changed.look(&api, &question(), at(now)).await.unwrap();
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
