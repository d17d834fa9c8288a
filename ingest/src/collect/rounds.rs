//! Going round: what is looked at one after the other, again and again, in turns that a provider can bear.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::{CollectError, Cursors, Next, Page, troubled};

/// Where a round stands. After a restart it begins anew.
#[derive(Debug, Default)]
pub(super) struct Rounds(Mutex<Round>);

#[derive(Debug, Default)]
struct Round {
    members: Vec<String>,
    members_at: Option<Timestamp>,
    queue: VecDeque<String>,
    begun: Option<Timestamp>,
    /// How often members failed in this round in a way that passes.
    failed: BTreeMap<String, u32>,
}

/// How long the list of members is good for.
const MEMBERS_LAST: Duration = Duration::from_secs(3_600);
/// How often a member that fails in a way that passes is asked in a round.
const TRIES: u32 = 3;

impl Rounds {
    /// Whether the members have to be listed (again) before the next round.
    pub(super) fn wants_members(&self, now: Timestamp) -> bool {
        let round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        round.members_at.is_none_or(|at| at.plus(MEMBERS_LAST) <= now)
    }

    /// The members as they were listed. Who is not among them any more has no turn.
    pub(super) fn members(&self, members: Vec<String>, now: Timestamp) {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        round.queue.retain(|member| members.contains(member));
        round.members = members;
        round.members_at = Some(now);
    }

    /// Whose turn it is, if it is somebody's; rounds begin `every` so often. It stays that member's turn until it is
    /// [`Rounds::done`] or has [`Rounds::failed`].
    pub(super) fn turn(&self, now: Timestamp, every: Duration) -> Option<String> {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if round.queue.is_empty() && round.begun.is_none_or(|begun| begun.plus(every) <= now) {
            round.queue = round.members.iter().cloned().collect();
            round.begun = Some(now);
            round.failed.clear();
        }
        round.queue.front().cloned()
    }

    /// What the member whose turn it is was asked for, with what came of it. `None`: it cannot be had, which is on record with
    /// `page`, and the member's turn goes on. What may pass gives the others their turn first.
    ///
    /// # Errors
    /// What concerns more than this member, or may pass.
    pub(super) fn settle<T>(
        &self,
        asked: (&str, &str),
        result: Result<T, CollectError>,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<Option<T>, CollectError> {
        match result {
            Ok(found) => {
                troubled::over(asked, cursors, page);
                Ok(Some(found))
            }
            Err(error) if error.is_of_one() => {
                troubled::begins(asked, &error, cursors, now, page)?;
                Ok(None)
            }
            Err(error) => {
                if error.is_passing() {
                    self.failed();
                }
                Err(error)
            }
        }
    }

    /// The member failed in a way that passes: the others have their turn before it is asked again, and after some times it
    /// waits for the next round.
    fn failed(&self) {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(member) = round.queue.pop_front() else { return };
        let tries = round.failed.entry(member.clone()).or_default();
        *tries += 1;
        if *tries < TRIES {
            round.queue.push_back(member);
        }
    }

    /// The turn is over.
    pub(super) fn done(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).queue.pop_front();
    }

    /// When to come again.
    pub(super) fn next(&self, now: Timestamp, every: Duration) -> Next {
        let wait = self.wait(now, every);
        if wait.is_zero() { Next::Now } else { Next::After(wait) }
    }

    /// How long until it is somebody's turn.
    pub(super) fn wait(&self, now: Timestamp, every: Duration) -> Duration {
        let round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !round.queue.is_empty() {
            return Duration::ZERO;
        }
        let next = round.begun.map_or(now, |begun| begun.plus(every));
        Duration::from_micros(u64::try_from(next.micros_since(now)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_in_each_round() {
        let (now, every) = (Timestamp::from_secs(1_000), Duration::from_secs(60));
        let rounds = Rounds::default();
        assert!(rounds.wants_members(now));
        rounds.members(vec!["a".into(), "b".into()], now);
        assert!(!rounds.wants_members(now));
        let turn = |now| rounds.turn(now, every).inspect(|_| rounds.done());
        assert_eq!([turn(now), turn(now), turn(now)], [Some("a".into()), Some("b".into()), None]);
        assert_eq!(rounds.wait(now.plus(Duration::from_secs(20)), every), Duration::from_secs(40));
        assert_eq!(rounds.turn(now.plus(every), every), Some("a".into()));
        assert_eq!(turn(now.plus(every)), Some("a".into()), "it is still its turn");
        assert_eq!(rounds.next(now.plus(every), every), Next::Now);
        assert!(rounds.wants_members(now.plus(MEMBERS_LAST)));
    }

    #[test]
    fn who_is_not_a_member_any_more_has_no_turn() {
        let (now, every) = (Timestamp::from_secs(1_000), Duration::from_secs(60));
        let rounds = Rounds::default();
        rounds.members(vec!["gone".into(), "a".into()], now);
        assert_eq!(rounds.turn(now, every), Some("gone".into()));
        rounds.members(vec!["a".into()], now);
        assert_eq!(rounds.turn(now, every), Some("a".into()));
    }

    #[test]
    fn who_fails_gives_the_others_their_turn_and_ends_no_round() {
        let (now, every) = (Timestamp::from_secs(1_000), Duration::from_secs(60));
        let rounds = Rounds::default();
        rounds.members(vec!["a".into(), "b".into()], now);
        let mut turns = Vec::new();
        while let Some(member) = rounds.turn(now, every) {
            if member == "a" {
                rounds.failed()
            } else {
                rounds.done()
            }
            turns.push(member);
        }
        assert_eq!(turns, ["a", "b", "a", "a"]);
        assert_eq!(rounds.turn(now.plus(every), every), Some("a".into()), "the next round asks it again");
    }
}
