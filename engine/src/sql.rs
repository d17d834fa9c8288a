//! What runs of `sql:` rules find, once. The query itself runs beside detection, on what is stored; its rows come back
//! as a control record, so that a replay finds the same.
//!
//! An episode is the run of consecutive runs in which a key was among the rows; its first run makes the finding. A run
//! whose end is not after that of the last one of its rule changes nothing, so a run that is recorded twice counts once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::{OWN_SOURCE, SqlRun};
use crate::finding::Anchor;
use crate::rule::SqlRule;
use crate::time::Timestamp;

/// Episodes of one rule that are kept open at most; of more the ones with the least keys are forgotten and counted, and
/// found again when they are seen again.
pub const EPISODES_MAX: usize = 100_000;

/// The episodes of one rule that go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episodes {
    /// End of the last run.
    last: Option<Timestamp>,
    /// Key → end of the run that began it.
    open: BTreeMap<Vec<String>, Timestamp>,
}

/// An episode that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Key columns and their values; a column that is null is missing.
    pub key: BTreeMap<String, String>,
    /// The row: the first of the key in the run.
    pub row: BTreeMap<String, String>,
    /// End of the run that began it.
    pub start: Timestamp,
}

impl Begun {
    /// What names it in the id of its finding.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor { source: OWN_SOURCE.to_owned(), item: format!("sql:{}", self.start.as_micros()), sub: 0 }
    }
}

impl Episodes {
    /// Takes in a run: the episodes that begin with it, in the order of their keys, and how many were forgotten. `None`
    /// if the run is not after the last one.
    pub fn run(&mut self, rule: &SqlRule, run: &SqlRun) -> Option<(Vec<Begun>, u64)> {
        if self.last.is_some_and(|last| run.to <= last) {
            return None;
        }
        self.last = Some(run.to);
        let mut rows: BTreeMap<Vec<String>, &BTreeMap<String, String>> = BTreeMap::new();
        for row in &run.rows {
            let key = rule.key.iter().map(|column| row.get(column).cloned().unwrap_or_default()).collect();
            rows.entry(key).or_insert(row);
        }
        // Of a run that was cut off nobody knows what it would have gone on to find.
        if !run.truncated {
            self.open.retain(|key, _| rows.contains_key(key));
        }
        let mut begun = Vec::new();
        for (key, row) in rows {
            if self.open.contains_key(&key) {
                continue;
            }
            self.open.insert(key, run.to);
            let own = |column: &String| Some((column.clone(), row.get(column)?.clone()));
            begun.push(Begun { key: rule.key.iter().filter_map(own).collect(), row: row.clone(), start: run.to });
        }
        let mut forgotten = 0;
        while self.open.len() > EPISODES_MAX {
            self.open.pop_first();
            forgotten += 1;
        }
        Some((begun, forgotten))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rule::{AlertSpec, Level, RuleMeta, RuleState};

    fn rule() -> SqlRule {
        let meta = RuleMeta {
            id: "r".into(),
            name: None,
            title: "r".into(),
            level: Level::Low,
            version: None,
            digest: "d".into(),
            state: RuleState::Active,
            emits: true,
            alert: AlertSpec::default(),
            tags: Vec::new(),
            controls: BTreeMap::new(),
            requires: Vec::new(),
            author: None,
            risk: 0,
        };
        let hour = Duration::from_secs(3_600);
        SqlRule { meta, every: hour, lookback: hour, key: vec!["repo".into(), "env".into()], query: "SELECT 1".into() }
    }

    fn run(hour: i64, repos: &[&str], truncated: bool) -> SqlRun {
        let row =
            |repo: &&str| BTreeMap::from([("repo".to_owned(), (*repo).to_owned()), ("n".to_owned(), "3".to_owned())]);
        let to = Timestamp::from_secs(hour * 3_600);
        let from = to.minus(Duration::from_secs(3_600));
        let rows = repos.iter().map(row).collect();
        SqlRun { rule: "r".into(), digest: "d".into(), from, to, rows, truncated }
    }

    #[test]
    fn the_first_run_of_an_episode_finds_it() {
        let mut episodes = Episodes::default();
        let mut begins = |hour, repos: &[&str], truncated| -> Vec<String> {
            let begun = episodes.run(&rule(), &run(hour, repos, truncated));
            let Some((begun, forgotten)) = begun else { return vec!["ignored".to_owned()] };
            assert_eq!(forgotten, 0);
            begun.iter().map(|one| one.key["repo"].clone()).collect()
        };
        assert_eq!(begins(1, &["b", "a", "a"], false), ["a", "b"]);
        assert_eq!(begins(1, &["c"], false), ["ignored"], "the same run again");
        assert_eq!(begins(2, &["a", "b"], false), [""; 0]);
        assert_eq!(begins(3, &["b"], false), [""; 0]);
        assert_eq!(begins(4, &["a", "b"], false), ["a"], "it was gone, and is back");
        assert_eq!(begins(5, &["c"], true), ["c"]);
        assert_eq!(begins(6, &["a", "b", "c"], false), [""; 0], "a run that was cut off ends nothing");
        assert_eq!(begins(2, &["z"], false), ["ignored"], "an old run");
    }

    #[test]
    fn a_begun_episode_names_its_key_and_its_start() {
        let (begun, _) = Episodes::default().run(&rule(), &run(1, &["a"], false)).unwrap();
        assert_eq!(begun[0].key, BTreeMap::from([("repo".to_owned(), "a".to_owned())]), "a null column is no key");
        assert_eq!(begun[0].anchor().item, "sql:3600000000");
        let (again, _) = Episodes::default().run(&rule(), &run(2, &["a"], false)).unwrap();
        assert_ne!(begun[0].anchor(), again[0].anchor());
    }

    #[test]
    fn open_episodes_are_bounded() {
        let mut episodes = Episodes::default();
        let names: Vec<String> = (0..EPISODES_MAX + 2).map(|number| format!("{number:07}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (begun, forgotten) = episodes.run(&rule(), &run(1, &names, false)).unwrap();
        assert_eq!((begun.len(), forgotten, episodes.open.len()), (EPISODES_MAX + 2, 2, EPISODES_MAX));
    }
}
