//! Lists that can be asked whether they are still what they were when they were last read.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::time::Timestamp;
use pipeproof_engine as engine;

/// How long a tag is trusted: what a provider's cache is wrong about is seen after that time.
const TRUSTED: Duration = Duration::from_secs(3_600);

/// Entity tags by list, for as long as we run. A tag belongs to the question it answered.
#[derive(Debug, Default)]
pub(super) struct Etags(Mutex<BTreeMap<String, Known>>);

#[derive(Debug)]
struct Known {
    question: String,
    etag: String,
    at: Timestamp,
}

impl Etags {
    /// What to ask the question about a list with.
    pub(super) fn get(&self, list: &str, question: &str, now: Timestamp) -> Option<String> {
        let etags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = etags.get(list)?;
        (known.question == question && now < known.at.plus(TRUSTED)).then(|| known.etag.clone())
    }

    /// Remembers the tag of an answer, in place of that of the list's answer before.
    pub(super) fn set(&self, list: &str, question: &str, etag: Option<String>, now: Timestamp) {
        let mut etags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match etag {
            Some(etag) => etags.insert(list.to_owned(), Known { question: question.to_owned(), etag, at: now }),
            None => etags.remove(list),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_one_question_and_for_a_while() {
        let etags = Etags::default();
        let at = Timestamp::from_secs;
        etags.set("list", "from=1", Some("W/\"a\"".to_owned()), at(0));
        assert_eq!(etags.get("list", "from=1", at(3_599)).as_deref(), Some("W/\"a\""));
        assert_eq!(etags.get("list", "from=2", at(1)), None);
        assert_eq!(etags.get("list", "from=1", at(3_600)), None);
        etags.set("list", "from=1", None, at(1));
        assert_eq!(etags.get("list", "from=1", at(1)), None);
    }
}
