//! Source windows: what came from each source in each UTC hour of received time, and whether that can be called whole.
//!
//! | source type | what establishes a window |
//! |---|---|
//! | `pipeproof` | our own ticks: whole unless we were down |
//! | `github.webhook` | a collector that found every delivery held that GitHub lists; without one nothing, and down at all → gap, because GitHub never delivers again by itself |
//! | `aws.cloudtrail` | a collector that compared what it read with the provider's signed digests: complete where all of them agree, a gap where a file that they list is missing or changed; without one nothing |
//! | any | records that were received in it and are lost as data, by damage to the log → gap, whatever else is known |
//! | any whose events their sender numbers ([`crate::sequence`]) | no number is missing before the first one of a later hour → whole; a missing one → gap until it comes |
//! | every other | nothing: the sender repeats what we did not accept |
//!
//! A day after its end the verdict on an hour is final.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::commit::{Completeness, SourceWindow};
use crate::control::{RecordsDamaged, SignedList};
use crate::sequence::{Arrival, HourChange, JUDGED_FOR, Numbered, Numberings, StreamChange};
use crate::source::SourceType;
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3_600);
/// A pause between records longer than this means that we were not receiving: ticks come every second.
pub const DOWN_AFTER: Duration = Duration::from_secs(5);
/// How long windows wait for a word of the provider's that comes late: digests do, by hours and after we were down.
const LATE_WORD: Duration = Duration::from_secs(3 * 86_400);
/// Longest basis of a window, characters.
const BASIS_CHARS: usize = 600;
/// How the basis of a window begins in which records were lost.
const LOST: &str = "records of the log are lost: ";

/// The windows of the current and the previous hours that may still change.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// By source, then by the hour.
    windows: BTreeMap<String, BTreeMap<Timestamp, Kept>>,
    numberings: Numberings,
}

#[derive(Clone, Debug)]
struct Kept {
    window: SourceWindow,
    /// Whether it changed since it was last taken.
    changed: bool,
}

/// What one record adds to its source's window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed {
    /// Events decoded.
    pub events: u64,
    /// It repeats an earlier record.
    pub duplicate: bool,
    /// It could not be decoded.
    pub dead_letter: bool,
    /// Received time minus event time, seconds.
    pub lag_secs: Option<i64>,
    /// Event time minus received time, seconds.
    pub skew_secs: Option<i64>,
}

impl Coverage {
    fn kept(&mut self, source: &str, hour: Timestamp) -> Option<&mut Kept> {
        self.windows.get_mut(source)?.get_mut(&hour)
    }

    /// The window of a source and an hour, while it may change.
    #[must_use]
    pub fn window(&self, source: &str, hour: Timestamp) -> Option<&SourceWindow> {
        self.windows.get(source)?.get(&hour).map(|kept| &kept.window)
    }

    /// Opens the window of a connected source that `now` falls into, if it is not open.
    pub fn open(&mut self, source: &str, source_type: SourceType, connected: Timestamp, now: Timestamp) {
        let hour = now.hour();
        if self.kept(source, hour).is_some() {
            return;
        }
        let window = new(source, source_type, hour.max(connected.min(now)), &self.numberings);
        self.windows.entry(source.to_owned()).or_default().insert(hour, Kept { window, changed: true });
    }

    /// Takes in the number that a sender, or the way, gave a record of its source. Before [`Coverage::count`] counts the record nothing is
    /// judged: `judge_numbers` does it.
    pub fn number(&mut self, source: &str, numbered: Numbered<'_>, arrival: Arrival) -> bool {
        self.numberings.observe(source, numbered, arrival)
    }

    /// Judges the windows of a source by the numbers that came. What was found whole stays so.
    pub fn judge_numbers(&mut self, source: &str, now: Timestamp) {
        for Kept { window, changed } in self.windows.get_mut(source).into_iter().flat_map(BTreeMap::values_mut) {
            let is_told = waits_for_lists(window.source_type) && window.status == Completeness::Gap;
            if is_told || window.status == Completeness::Complete || !is_open(window, &self.numberings, now) {
                continue;
            }
            let before = (window.status, window.basis.clone());
            judge(window, &self.numberings);
            *changed |= before != (window.status, window.basis.clone());
        }
    }

    /// The numberings of all sources.
    #[must_use]
    pub const fn numberings(&self) -> &Numberings {
        &self.numberings
    }

    /// Forgets the numbers of a source that was removed.
    pub fn remove(&mut self, source: &str) {
        self.numberings.remove(source);
    }

    /// Lets numberings go that are too old, at an hour's turn.
    pub fn expire(&mut self, now: Timestamp) {
        self.numberings.expire(now);
    }

    pub(crate) fn take_numbers(&mut self) -> (Vec<StreamChange>, Vec<HourChange>) {
        self.numberings.take_changes()
    }

    pub(crate) fn restore_numbers(&mut self, streams: Vec<StreamChange>, hours: Vec<HourChange>, now: Timestamp) {
        self.numberings.restore(streams, hours, now);
    }

    /// Counts a record into its source's window, which must be open.
    pub fn count(&mut self, source: &str, received: Timestamp, observed: Observed) {
        let Some(Kept { window, changed }) = self.kept(source, received.hour()) else { return };
        *changed = true;
        window.records += 1;
        window.events += observed.events;
        window.duplicates += u64::from(observed.duplicate);
        window.dead_letters += u64::from(observed.dead_letter);
        window.max_lag_secs = window.max_lag_secs.max(observed.lag_secs.unwrap_or(0));
        window.max_skew_secs = window.max_skew_secs.max(observed.skew_secs.unwrap_or(0));
    }

    /// We were not receiving from `from` to `to`: every open window it touches says so.
    pub fn down(&mut self, from: Timestamp, to: Timestamp) {
        self.open_between(from, to);
        for Kept { window, changed } in self.windows.values_mut().flat_map(BTreeMap::values_mut) {
            let start = from.max(window.start);
            let end = to.min(window.end);
            if start < end {
                window.down_secs += (end.micros_since(start) / 1_000_000).max(1);
                // What a list of the provider's names as missing stays missing.
                if !(waits_for_lists(window.source_type) && window.status == Completeness::Gap) {
                    judge(window, &self.numberings);
                }
                *changed = true;
            }
        }
    }

    /// Windows of hours in which we were down from end to end, for sources whose provider says afterwards what was there.
    fn open_between(&mut self, from: Timestamp, to: Timestamp) {
        let from = from.max(to.minus(LATE_WORD));
        for (source, windows) in &mut self.windows {
            let Some(kind) =
                windows.values().next().map(|kept| kept.window.source_type).filter(|kind| waits_for_lists(*kind))
            else {
                continue;
            };
            let mut hour = from.hour().plus(HOUR);
            while hour < to.hour() {
                let fresh = || Kept { window: new(source, kind, hour, &self.numberings), changed: true };
                windows.entry(hour).or_insert_with(fresh);
                hour = hour.plus(HOUR);
            }
        }
    }

    /// A list that the provider signed names what is missing or was changed: the windows it speaks of have a gap.
    pub fn gap(&mut self, source: &str, list: &SignedList) {
        for Kept { window, changed } in self.windows.get_mut(source).into_iter().flat_map(BTreeMap::values_mut) {
            if window.start >= list.to || window.end <= list.from {
                continue;
            }
            let named = format!("{}: {}", list.list, list.faults.join("; "));
            let before = match window.status {
                Completeness::Gap if waits_for_lists(window.source_type) => format!("{}; ", window.basis),
                _ if is_lost(window) => format!("{}; ", window.basis),
                _ => String::new(),
            };
            window.status = Completeness::Gap;
            window.basis = format!("{before}{named}").chars().take(BASIS_CHARS).collect();
            *changed = true;
        }
    }

    /// Everything that the provider lists of what it sent from `from` to `to` is held: windows inside are whole.
    pub fn whole(&mut self, source: &str, from: Timestamp, to: Timestamp) {
        for Kept { window, changed } in self.windows.get_mut(source).into_iter().flat_map(BTreeMap::values_mut) {
            let is_inside = from <= window.start && window.end <= to;
            if !is_inside || window.status == Completeness::Complete || is_lost(window) {
                continue;
            }
            window.status = Completeness::Complete;
            window.basis = "everything that the provider lists as sent is held".to_owned();
            if window.down_secs > 0 {
                window.basis.push_str(&format!("; not receiving for {} s, fetched afterwards", window.down_secs));
            }
            *changed = true;
        }
    }

    /// Records are lost as data. Of which sources they were nobody knows, so every window has a gap in which one of them may have
    /// been received. Windows that are closed are opened once more, as the record of the damage has them.
    pub fn lost(&mut self, damaged: &RecordsDamaged) {
        for window in &damaged.windows {
            let kept = self.windows.entry(window.source.clone()).or_default();
            kept.entry(window.end.minus(HOUR)).or_insert_with(|| Kept { window: window.clone(), changed: true });
        }
        for Kept { window, changed } in self.windows.values_mut().flat_map(BTreeMap::values_mut) {
            let touches = damaged.lost.iter().any(|lost| window.start <= lost.to && lost.from < window.end);
            if touches && !is_lost(window) {
                window.status = Completeness::Gap;
                window.basis = format!("{LOST}{}", damaged.reason).chars().take(BASIS_CHARS).collect();
                *changed = true;
            }
        }
    }

    /// Forgets windows that ended more than an hour before `now`, or longer where the provider's word comes late or numbers can still
    /// tell something, once their last state was taken.
    pub fn close(&mut self, now: Timestamp) {
        for windows in self.windows.values_mut() {
            windows.retain(|_, kept| is_open(&kept.window, &self.numberings, now) || kept.changed);
        }
        self.windows.retain(|_, windows| !windows.is_empty());
    }

    /// The windows that changed since they were last taken, by source and hour.
    pub fn take_changed(&mut self) -> Vec<SourceWindow> {
        let kept = self.windows.values_mut().flat_map(BTreeMap::values_mut);
        kept.filter_map(|kept| std::mem::take(&mut kept.changed).then(|| kept.window.clone())).collect()
    }

    /// Every window kept, by source and hour.
    pub fn iter(&self) -> impl Iterator<Item = &SourceWindow> {
        self.windows.values().flat_map(BTreeMap::values).map(|kept| &kept.window)
    }

    /// Puts back a window, as restoring does.
    pub fn insert(&mut self, window: SourceWindow) {
        let kept = Kept { window, changed: false };
        self.windows.entry(kept.window.source.clone()).or_default().insert(kept.window.end.minus(HOUR), kept);
    }
}

/// Whether records that may have been received in the window are lost: nothing that is held can make it whole.
fn is_lost(window: &SourceWindow) -> bool {
    window.status == Completeness::Gap && window.basis.starts_with(LOST)
}

/// Whether a provider signs lists of what it delivered.
const fn waits_for_lists(source_type: SourceType) -> bool {
    matches!(source_type, SourceType::AwsCloudtrail)
}

/// A window from `start` to the end of its hour.
fn new(source: &str, source_type: SourceType, start: Timestamp, numberings: &Numberings) -> SourceWindow {
    let mut window = SourceWindow {
        source: source.to_owned(),
        source_type,
        start,
        end: start.hour().plus(HOUR),
        records: 0,
        events: 0,
        duplicates: 0,
        dead_letters: 0,
        max_lag_secs: 0,
        max_skew_secs: 0,
        down_secs: 0,
        status: Completeness::NotEstablished,
        basis: String::new(),
    };
    judge(&mut window, numberings);
    window
}

/// Whether something may still change what is said of a window.
fn is_open(window: &SourceWindow, numberings: &Numberings, now: Timestamp) -> bool {
    let numbered = || numberings.since(&window.source).is_some_and(|since| since < window.end);
    let wait = if waits_for_lists(window.source_type) { LATE_WORD } else { HOUR };
    window.end.plus(wait) >= now || (window.end.plus(JUDGED_FOR) >= now && numbered())
}

fn judge(window: &mut SourceWindow, numberings: &Numberings) {
    if is_lost(window) {
        return;
    }
    let down = window.down_secs;
    if let Some((status, mut basis)) = numberings.judge(window) {
        if down > 0 {
            basis.push_str(&format!("; not receiving for {down} s"));
        }
        (window.status, window.basis) = (status, basis);
        return;
    }
    judge_unnumbered(window);
    if let Some(skipped) = numberings.skipped(window) {
        window.basis.push_str(&format!("; {skipped}"));
    }
}

fn judge_unnumbered(window: &mut SourceWindow) {
    let down = window.down_secs;
    (window.status, window.basis) = match window.source_type {
        SourceType::Pipeproof if down == 0 => (Completeness::Complete, "own ticks without a pause".to_owned()),
        SourceType::Pipeproof => (Completeness::Gap, format!("not running for {down} s")),
        SourceType::GithubWebhook if down > 0 => {
            (Completeness::Gap, format!("not receiving for {down} s, and GitHub does not deliver again by itself"))
        }
        SourceType::GithubWebhook
        | SourceType::GithubJoblog
        | SourceType::GithubAudit
        | SourceType::GitlabWebhook
        | SourceType::GitlabAudit
        | SourceType::GitlabJoblog
        | SourceType::Jenkins
        | SourceType::CircleciWebhook
        | SourceType::CircleciAudit
        | SourceType::Buildkite
        | SourceType::Cdevents
        | SourceType::VaultAudit
        | SourceType::KubernetesAudit
        | SourceType::AwsCloudtrail
        | SourceType::GcpAudit
        | SourceType::AzureSignin
        | SourceType::AzureActivity
        | SourceType::AzureKeyvault
        | SourceType::KubernetesEvent
        | SourceType::KubernetesAdmission
        | SourceType::KyvernoReport
        | SourceType::OpaDecision
        | SourceType::GatekeeperAudit
        | SourceType::Argocd
        | SourceType::Flux
        | SourceType::Falco
        | SourceType::Tetragon
        | SourceType::Tracee
        | SourceType::HardenRunner
        | SourceType::Okta
        | SourceType::Cloudevents
        | SourceType::Otlp
        | SourceType::SigstoreBundle
        | SourceType::RekorEntry
        | SourceType::IntotoStatement
        | SourceType::SbomCyclonedx
        | SourceType::SbomSpdx
        | SourceType::Trivy
        | SourceType::Grype
        | SourceType::Sarif
        | SourceType::Gitleaks
        | SourceType::JenkinsJoblog
        | SourceType::BuildkiteJoblog
        | SourceType::ProviderLedger
        | SourceType::Json => (
            Completeness::NotEstablished,
            if down > 0 {
                format!(
                    "events carry no sequence numbers; not receiving for {down} s, the sender repeats what was not accepted"
                )
            } else {
                "events carry no sequence numbers".to_owned()
            },
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Lost;

    #[test]
    fn being_down_is_a_gap_for_a_source_that_never_repeats() {
        let hour = Timestamp::from_secs(3_600 * 100);
        let mut coverage = Coverage::default();
        for (name, kind) in [("hooks", SourceType::GithubWebhook), ("k8s", SourceType::KubernetesAudit)] {
            coverage.open(name, kind, hour.minus(HOUR), hour.plus(Duration::from_secs(10)));
        }
        coverage.count("hooks", hour.plus(Duration::from_secs(11)), Observed { events: 2, ..Observed::default() });
        coverage.down(hour.plus(Duration::from_secs(60)), hour.plus(Duration::from_secs(90)));
        let windows = coverage.take_changed();
        let by = |name: &str| windows.iter().find(|window| window.source == name).unwrap();
        assert_eq!((by("hooks").status, by("hooks").down_secs, by("hooks").events), (Completeness::Gap, 30, 2));
        assert_eq!((by("k8s").status, by("k8s").down_secs), (Completeness::NotEstablished, 30));
        assert!(coverage.take_changed().is_empty());
        coverage.whole("hooks", hour.minus(HOUR), hour.plus(HOUR / 2));
        assert!(coverage.take_changed().is_empty(), "half an hour is not the hour");
        coverage.whole("hooks", hour, hour.plus(HOUR));
        let [whole] = &coverage.take_changed()[..] else { panic!("one window changed") };
        assert_eq!((whole.source.as_str(), whole.status), ("hooks", Completeness::Complete));
        assert!(whole.basis.contains("not receiving for 30 s"), "{}", whole.basis);
        coverage.close(hour.plus(HOUR * 3));
        assert_eq!(coverage.iter().count(), 0);
    }

    #[test]
    fn lost_records_are_a_gap_of_every_window_they_may_have_come_in_and_stay_one() {
        let hour = Timestamp::from_secs(3_600 * 100);
        let minutes = |count: u64| hour.plus(Duration::from_secs(count * 60));
        let mut coverage = Coverage::default();
        let sources = [("hooks", SourceType::GithubWebhook), ("trail", SourceType::AwsCloudtrail)];
        let mut closed = new("k8s", SourceType::KubernetesAudit, hour.minus(HOUR * 5), &Numberings::default());
        closed.records = 17;
        for (name, kind) in sources {
            coverage.open(name, kind, hour.minus(HOUR), minutes(10));
            coverage.open(name, kind, hour.minus(HOUR), minutes(70));
        }
        coverage.take_changed();
        let lost = |first, from, to| Lost { first, end: first + 2, from, to };
        let damaged = RecordsDamaged {
            name: "log".to_owned(),
            records: vec![(3, 5), (8, 10)],
            lost: vec![lost(3, closed.start, closed.start.plus(HOUR / 2)), lost(8, minutes(10), minutes(11))],
            windows: vec![closed.clone()],
            more: false,
            reason: "records 3 to 4".to_owned(),
        };
        coverage.lost(&damaged);
        let changed = coverage.take_changed();
        let told: Vec<_> = changed.iter().map(|it| (it.source.as_str(), it.start, it.records, it.status)).collect();
        let gap = Completeness::Gap;
        assert_eq!(told, [("hooks", hour, 0, gap), ("k8s", closed.start, 17, gap), ("trail", hour, 0, gap)]);
        assert_eq!(changed[0].basis, "records of the log are lost: records 3 to 4");
        // Nothing that is held can make them whole, and what else is known does not hide it.
        coverage.whole("hooks", hour, hour.plus(HOUR));
        coverage.judge_numbers("hooks", minutes(20));
        coverage.down(minutes(30), minutes(31));
        coverage.gap("trail", &list(hour, hour.plus(HOUR), &["a.json.gz is missing"]));
        let bases: Vec<_> = coverage.iter().filter(|it| it.start == hour).map(|it| (it.status, &it.basis)).collect();
        assert_eq!(bases.len(), 2);
        assert!(bases.iter().all(|(status, basis)| *status == gap && basis.starts_with(LOST)), "{bases:?}");
        assert!(bases[1].1.ends_with("a.json.gz is missing"));
        coverage.take_changed();
        coverage.lost(&damaged);
        coverage.close(minutes(80));
        let again = coverage.take_changed();
        assert_eq!(again.len(), 0, "it is told once: {again:?}");
        assert!(coverage.iter().all(|it| it.source != "k8s"), "what is told is let go");
    }

    fn list(from: Timestamp, to: Timestamp, faults: &[&str]) -> SignedList {
        SignedList {
            list: "trail/digest".to_owned(),
            from,
            to,
            status: if faults.is_empty() { Completeness::Complete } else { Completeness::Gap },
            files: 1,
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        }
    }

    #[test]
    fn a_signed_list_that_names_what_is_missing_is_a_gap_of_the_hours_it_speaks_of() {
        let hour = Timestamp::from_secs(3_600 * 100);
        let mut coverage = Coverage::default();
        for at in [0, 1, 2] {
            coverage.open("trail", SourceType::AwsCloudtrail, hour.minus(HOUR), hour.plus(HOUR * at));
        }
        coverage.take_changed();
        coverage.gap("trail", &list(hour.plus(HOUR), hour.plus(HOUR * 2), &["a.json.gz is missing"]));
        let [window] = &coverage.take_changed()[..] else { panic!("one window changed") };
        assert_eq!((window.start, window.status), (hour.plus(HOUR), Completeness::Gap));
        assert_eq!(window.basis, "trail/digest: a.json.gz is missing");
        coverage.gap("trail", &list(hour.plus(HOUR), hour.plus(HOUR * 2), &["b.json.gz was changed"]));
        coverage.down(hour.plus(HOUR), hour.plus(HOUR + Duration::from_secs(60)));
        let [window] = &coverage.take_changed()[..] else { panic!("one window changed") };
        assert!(
            window.status == Completeness::Gap
                && window.basis.contains("a.json.gz")
                && window.basis.contains("b.json.gz")
        );
    }

    #[test]
    fn hours_in_which_we_were_down_wait_for_the_digests_of_them() {
        let hour = Timestamp::from_secs(3_600 * 100);
        let mut coverage = Coverage::default();
        for (name, kind) in [("trail", SourceType::AwsCloudtrail), ("k8s", SourceType::KubernetesAudit)] {
            coverage.open(name, kind, hour.minus(HOUR), hour.plus(Duration::from_secs(10)));
            coverage.open(name, kind, hour.minus(HOUR), hour.plus(HOUR * 5));
        }
        coverage.down(hour.plus(Duration::from_secs(60)), hour.plus(HOUR * 5));
        coverage.take_changed();
        coverage.close(hour.plus(HOUR * 5));
        let of = |coverage: &Coverage, name: &str| coverage.iter().filter(|window| window.source == name).count();
        assert_eq!((of(&coverage, "trail"), of(&coverage, "k8s")), (6, 1));
        coverage.whole("trail", hour, hour.plus(HOUR * 4));
        let complete = coverage.take_changed();
        assert_eq!(complete.len(), 4);
        assert!(complete.iter().all(|window| window.status == Completeness::Complete && window.down_secs > 0));
        // After days nobody waits any more, however long the pause was.
        coverage.down(hour.plus(HOUR * 5), hour.plus(HOUR * 24 * 300));
        assert!(of(&coverage, "trail") < 90);
    }
}
