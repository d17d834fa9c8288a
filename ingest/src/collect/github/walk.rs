//! Lists that have no selection by time, newest first: walked from their beginning back to where they were known.
//!
//! A walk that is too long for one turn goes on in the next one at the page where it stopped. That page is read again, because
//! what is taken off a list moves the rest of it up; what is told twice is recognised. Where the list ends before what was
//! known is reached, the walk ends too, and says what cannot be told.

use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ELEMENTS_MAX;
use crate::collect::etags::Etags;
use crate::collect::http::{Api, Listed};
use crate::collect::{CollectError, PAGE_BYTES};

/// Pages read in a turn.
const PAGES_MAX: usize = 20;

/// A list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    /// Path and query of its first page.
    pub(super) path: &'a str,
    /// Member of an element that says its time, by which the list is sorted.
    pub(super) time: &'static str,
    /// Member that says its id.
    pub(super) id: &'static str,
}

/// How far a list was walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walked {
    /// What is of a time before is listed.
    pub(super) to: Timestamp,
    /// Ids at that very time that are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    edge: Vec<u64>,
    /// The walk that goes on, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    walk: Option<Walk>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Walk {
    /// Path and query of the page that was read last.
    page: String,
    /// The newest that it met, and the ids at that very time.
    top: Timestamp,
    edge: Vec<u64>,
}

/// What a turn found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is new: its id, its bytes, its JSON; oldest first.
    pub(super) new: Vec<(u64, Bytes, Value)>,
    /// What cannot be told any more.
    pub(super) lost: Option<String>,
    /// Whether the walk goes on.
    pub(super) more: bool,
}

impl Walked {
    /// Nothing is listed yet; what is older is not asked for.
    pub(super) const fn since(to: Timestamp) -> Self {
        Self { to, edge: Vec::new(), walk: None }
    }

    /// Walks for a turn.
    pub(super) async fn follow(
        &mut self,
        api: &Api,
        list: List<'_>,
        etags: &Etags,
        now: Timestamp,
    ) -> Result<Found, CollectError> {
        let resumed = self.walk.is_some();
        let fresh = || Walk { page: list.path.to_owned(), top: self.to, edge: self.edge.clone() };
        let mut walk = self.walk.take().unwrap_or_else(fresh);
        let mut found = Found::default();
        let (mut pages, mut bytes, mut etag) = (0, 0, None);
        let mut next = Some(walk.page.clone());
        while let Some(path) = next.take() {
            // The page that is read again brings nobody further.
            let is_further = pages > usize::from(resumed);
            let known = if resumed || pages > 0 { None } else { etags.get(list.path, list.path, now) };
            let listed = match api.list(&path, known.as_deref()).await {
                Ok(Some(listed)) => listed,
                // Nothing on it is new.
                Ok(None) => return Ok(found),
                Err(error) if error.is_no_page() && (resumed || pages > 0) => {
                    found.lost =
                        Some(format!("what was listed since {} cannot be walked to its end: {error}", self.to));
                    break;
                }
                Err(_) if is_further => {
                    found.more = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            pages += 1;
            etag = listed.etag.clone();
            let reached = self.read(&listed, list, &mut walk, &mut found, &mut bytes)?;
            walk.page = path;
            next = listed.next.filter(|_| !reached);
            if next.is_some() && (pages >= PAGES_MAX || bytes > PAGE_BYTES) && pages > usize::from(resumed) {
                found.more = true;
                break;
            }
        }
        // What is new comes first: a first page without anything new is the same until there is.
        let idle = !resumed && pages == 1 && !found.more && found.new.is_empty();
        etags.set(list.path, list.path, etag.filter(|_| idle), now);
        if found.more {
            self.walk = Some(walk);
        } else {
            (self.to, self.edge) = (walk.top, walk.edge);
        }
        found.new.reverse();
        Ok(found)
    }

    /// Reads a page; whether it reaches what was known.
    fn read(
        &self,
        listed: &Listed,
        list: List<'_>,
        walk: &mut Walk,
        found: &mut Found,
        bytes: &mut usize,
    ) -> Result<bool, CollectError> {
        let mut reached = false;
        for (body, object) in listed.elements(None, ELEMENTS_MAX)? {
            let id = object.get(list.id).and_then(Value::as_u64).ok_or_else(|| listed.wrong("an entry has no id"))?;
            let at = object.get(list.time).and_then(Value::as_str).and_then(Timestamp::parse);
            let at = at.ok_or_else(|| listed.wrong("an entry has no time"))?;
            if at < self.to {
                reached = true;
                continue;
            }
            if at > walk.top {
                (walk.top, walk.edge) = (at, Vec::new());
            }
            if at == walk.top && !walk.edge.contains(&id) {
                walk.edge.push(id);
            }
            if at > self.to || !self.edge.contains(&id) {
                *bytes += body.len();
                found.new.push((id, body, object));
            }
        }
        Ok(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::script::{Script, at};

    const NOW: i64 = 1_795_694_400;
    const LIST: List<'static> = List { path: "/list?per_page=100", time: "updated_at", id: "number" };

    fn page(script: &Script, number: u64, pages: u64) {
        let path = if number == 1 { LIST.path.to_owned() } else { format!("/list?page={number}") };
        let updated = at(NOW - 10 * i64::try_from(number).unwrap());
        let body = format!(r#"[{{"number":{number},"updated_at":"{updated}"}}]"#);
        let next = format!("<https://api.example/list?page={}>; rel=\"next\"", number + 1);
        let next = [("link", next.as_str())];
        script.json_with(&path, &body, if number < pages { &next } else { &[] });
    }

    async fn turn(script: &std::sync::Arc<Script>, walked: &mut Walked, etags: &Etags) -> (Vec<u64>, Found) {
        let mut found = walked.follow(&script.api(), LIST, etags, at(NOW)).await.unwrap();
        (found.new.drain(..).map(|(id, ..)| id).collect(), found)
    }

    #[tokio::test]
    async fn a_list_that_is_too_long_for_a_turn_is_walked_in_several() {
        let script = Script::new();
        (1..=45).for_each(|number| page(&script, number, 45));
        let (mut walked, etags) = (Walked::since(at(NOW - 9_000)), Etags::default());
        let mut seen = std::collections::BTreeSet::new();
        for turn_number in 0..3 {
            let (ids, found) = turn(&script, &mut walked, &etags).await;
            assert_eq!((found.more, found.lost), (turn_number < 2, None));
            seen.extend(ids);
            walked = serde_json::from_value(serde_json::to_value(&walked).unwrap()).unwrap();
        }
        assert_eq!(seen, (1..=45).collect());
        assert_eq!((walked.to, walked.walk.clone()), (at(NOW - 10), None));
        assert!(turn(&script, &mut walked, &etags).await.0.is_empty());
    }

    #[tokio::test]
    async fn a_walk_that_cannot_go_on_says_what_it_leaves_out() {
        let script = Script::new();
        (1..=25).for_each(|number| page(&script, number, 99));
        let (mut walked, etags) = (Walked::since(at(NOW - 9_000)), Etags::default());
        assert!(turn(&script, &mut walked, &etags).await.1.more);
        script.answer("/list?page=23", 422, &[], r#"{"message":"pagination is limited for this resource"}"#);
        let (_, found) = turn(&script, &mut walked, &etags).await;
        assert!(!found.more && found.lost.unwrap().contains("pagination is limited"));
        assert_eq!(walked.to, at(NOW - 10), "what comes later is told again");
    }

    #[tokio::test]
    async fn what_did_not_change_costs_nothing() {
        let script = Script::new();
        let (mut walked, etags) = (Walked::since(at(NOW - 9_000)), Etags::default());
        let body = format!(r#"[{{"number":1,"updated_at":"{}"}}]"#, at(NOW - 10));
        script.json_with(LIST.path, &body, &[("etag", "W/\"a\"")]);
        for asked in [false, false, true] {
            turn(&script, &mut walked, &etags).await;
            assert_eq!(script.asked()[0].1.contains_key("if-none-match"), asked);
        }
    }
}
