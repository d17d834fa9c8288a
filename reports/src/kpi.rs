//! The time KPIs of incidents: MTTD and the MTTR family, each with its kind, its n, its spread, and what is still open.
//!
//! Everything is recomputed from one row per incident; nothing is an average of averages, and what is not known (when it
//! began, when it will end) is counted as not known instead of being filled in. It reads no store: rows are handed in.

pub mod distribution;
pub mod files;
pub mod incident_times;
pub mod rows;
pub mod survival;
pub mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use pipeproof_engine::time::{Timestamp, micros};
use serde::{Deserialize, Serialize};

use distribution::Distribution;
pub use incident_times::IncidentTimes;
use survival::{Observation, Survival};

/// Version of the definitions below; any change of what a number means is a new one.
pub const DEFINITIONS: &str = "pipeproof kpi v1";
/// Times that contradict their order by no more than this are taken as equal and counted; clocks differ by that much.
pub const CLAMP: Duration = Duration::from_secs(5);
/// Horizon of the restricted mean, unless another is asked for.
pub const TAU: Duration = Duration::from_secs(72 * 3_600);

/// What a report covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KpiRequest {
    /// First detection time that counts.
    pub from: Timestamp,
    /// First detection time after the period.
    pub to: Timestamp,
    /// What is known: open incidents are as old as they are here.
    pub as_of: Timestamp,
    /// Horizon of the restricted mean survival time.
    pub tau: Duration,
    /// Time limits, where attainment is to be reported.
    pub limits: ResponseLimits,
}

impl KpiRequest {
    /// A report with the usual horizon and limits.
    #[must_use]
    pub const fn new(from: Timestamp, to: Timestamp, as_of: Timestamp) -> Self {
        Self { from, to, as_of, tau: TAU, limits: ResponseLimits::USUAL }
    }
}

/// Time limits of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Until somebody owns it.
    pub acknowledge: Option<Duration>,
    /// Until the damage is stopped.
    pub contain: Option<Duration>,
    /// Until the cause is removed.
    pub remediate: Option<Duration>,
}

impl ResponseLimits {
    /// 4 h to acknowledge, 24 h to contain, none to remediate.
    pub const USUAL: Self = Self {
        acknowledge: Some(Duration::from_secs(4 * 3_600)),
        contain: Some(Duration::from_secs(24 * 3_600)),
        remediate: None,
    };
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KpiReport {
    /// [`DEFINITIONS`].
    pub definitions: String,
    /// Start of the period, inclusive.
    pub from: Timestamp,
    /// End of the period, exclusive.
    pub to: Timestamp,
    /// State of knowledge.
    pub as_of: Timestamp,
    /// How many incidents were detected in the period, and which of them count.
    pub cohort: Cohort,
    /// Time to detect.
    pub detect: Detection,
    /// The same by severity.
    pub detect_by_level: BTreeMap<String, Detection>,
    /// Incidents found only in hindsight: never part of MTTD.
    pub retro: Retro,
    /// Times from detection to acknowledgement, containment and remediation, and exposure.
    pub response: Vec<Response>,
    /// Incidents that were reopened, and how long their first remedy took.
    pub reopened: Reopened,
    /// Intervals that were negative by at most five seconds and count as zero.
    pub clamped: u64,
    /// Intervals that were negative by more: their incidents are left out of the figure and listed here.
    pub data_quality: Vec<DataQuality>,
    /// What the figures do not show.
    pub limitations: Vec<String>,
}

/// The incidents of a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cohort {
    /// Detected in the period.
    pub detected: u64,
    /// Of these dismissed as false positives: counted nowhere else.
    pub dismissed: u64,
    /// Of these exercises: counted nowhere else.
    pub exercises: u64,
    /// Of the rest found only in hindsight: counted in the response, not in the detection.
    pub retro: u64,
    /// What the response figures are computed from.
    pub counted: u64,
}

/// Time to detect: from the occurrence to the first finding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Incidents, those found in hindsight left out.
    pub incidents: u64,
    /// Of these the ones whose occurrence is known.
    pub occurrence_known: u64,
    /// The same as a percentage; absent without incidents.
    pub occurrence_coverage_percent: Option<f64>,
    /// MTTD: `t_det − t_occ` where the occurrence is known. Its mean is the sum of the next two means.
    pub time_to_detect: Distribution,
    /// `t_avail − t_occ`: source and ingest lag.
    pub source_lag: Distribution,
    /// `t_det − t_avail`: detection lag of the same incidents.
    pub detection_lag: Distribution,
    /// `t_det − t_avail` of every incident, whether its occurrence is known or not: the engine's own lag.
    pub engine_detection_lag: Distribution,
}

/// Incidents found in hindsight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retro {
    /// How many.
    pub incidents: u64,
    /// `t_det − t_occ`: how long they stayed unseen.
    pub dwell: Distribution,
}

/// One member of the MTTR family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// `MTTA`, `MTTC`, `MTTRemediate` or `Exposure`: never a bare "MTTR".
    pub kind: String,
    /// What it measures, from when to when.
    pub measures: String,
    /// Over the incidents in which the step happened.
    #[serde(flatten)]
    pub figures: ResponseFigures,
    /// The same by severity.
    pub by_level: BTreeMap<String, ResponseFigures>,
}

/// Figures of one member of the MTTR family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResponseFigures {
    /// Incidents in which the step happened: closed-only figures, which flatter while incidents are open.
    pub done: Distribution,
    /// Incidents that still wait for the step at `as_of`.
    pub n_open: u64,
    /// These, oldest first, with their ages.
    pub open: Vec<OpenIncident>,
    /// Incidents that went past the step without recording it; they count as open until then.
    pub n_skipped: u64,
    /// With open incidents as right-censored observations.
    pub survival: Survival,
    /// Attainment of the time limit, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Attainment>,
}

/// An incident that still waits for a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenIncident {
    /// Its id.
    pub id: String,
    /// Seconds since the clock of the figure started.
    pub age_secs: f64,
}

/// How often a time limit was kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attainment {
    /// The limit, in seconds.
    pub limit_secs: f64,
    /// Done within it.
    pub within: u64,
    /// Done after it, or open past it.
    pub past: u64,
    /// Open and still within it: neither kept nor broken.
    pub pending: u64,
    /// `within / (within + past)` in percent; absent when both are zero.
    pub percent: Option<f64>,
}

/// Reopened incidents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reopened {
    /// Incidents reopened at least once.
    pub incidents: u64,
    /// Of all that count, in percent; absent without any.
    pub percent: Option<f64>,
    /// `t_rem` before the first reopening, from detection; the headline counts the final one.
    pub first_fix: Distribution,
}

/// An interval that cannot be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataQuality {
    /// The incident.
    pub incident: String,
    /// Which interval.
    pub interval: String,
    /// Its length in seconds: negative.
    pub secs: f64,
}

/// Seconds, from microseconds.
#[must_use]
pub fn secs(micros: i64) -> f64 {
    // Exact to the microsecond below 2^53 µs, 285 years.
    micros as f64 / 1e6
}

pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    // Two decimals, so that a report reads the same wherever it is computed.
    (whole > 0).then(|| (part as f64 * 10_000.0 / whole as f64).round() / 100.0)
}

/// Computes the report over one row per incident, as known at `request.as_of`.
#[must_use]
pub fn report(incidents: &[IncidentTimes], request: &KpiRequest) -> KpiReport {
    let mut cohort = Cohort::default();
    let mut counted: Vec<&IncidentTimes> = Vec::new();
    for incident in incidents {
        if incident.detected < request.from || incident.detected >= request.to || incident.detected > request.as_of {
            continue;
        }
        cohort.detected += 1;
        if incident.is_test {
            cohort.exercises += 1;
        } else if incident.dismissed {
            cohort.dismissed += 1;
        } else {
            cohort.retro += u64::from(incident.retro);
            counted.push(incident);
        }
    }
    cohort.counted = counted.len() as u64;
    counted.sort_by(|one, other| (one.detected, &one.id).cmp(&(other.detected, &other.id)));

    let mut checks = Checks::default();
    let (retro, live): (Vec<_>, Vec<_>) = counted.iter().copied().partition(|incident| incident.retro);
    let detect = detection(&live, &mut checks);
    let retro = Retro { incidents: retro.len() as u64, dwell: dwell(&retro, &mut checks) };
    let response: Vec<_> = KINDS.iter().map(|kind| kind.over(&counted, request, &mut checks)).collect();
    let reopened = reopened(&counted, &mut checks);
    // Detection and response by severity repeat the intervals above; they must not be counted twice.
    let mut unused = Checks::default();
    let detect_by_level =
        by_level(&live).into_iter().map(|(level, group)| (level, detection(&group, &mut unused))).collect();
    KpiReport {
        definitions: DEFINITIONS.to_owned(),
        from: request.from,
        to: request.to,
        as_of: request.as_of,
        cohort,
        detect,
        detect_by_level,
        retro,
        response,
        reopened,
        clamped: checks.clamped,
        data_quality: checks.exceptions,
        limitations: LIMITATIONS.iter().map(|&text| text.to_owned()).collect(),
    }
}

const LIMITATIONS: &[&str] = &[
    "incidents nobody detected are in no figure; that makes recent periods look better than they are",
    "incidents are grouped by the time they were detected, not by the time they occurred",
    "when service was restored is not recorded, so there is no mean time to recover",
    "detection by somebody outside is not recorded apart from detection by rules",
];

fn by_level<'a>(incidents: &[&'a IncidentTimes]) -> BTreeMap<String, Vec<&'a IncidentTimes>> {
    let mut groups: BTreeMap<String, Vec<&IncidentTimes>> = BTreeMap::new();
    for incident in incidents {
        groups.entry(incident.level.name().to_owned()).or_default().push(incident);
    }
    groups
}

/// What was found wrong with intervals on the way.
#[derive(Default)]
struct Checks {
    clamped: u64,
    exceptions: Vec<DataQuality>,
}

impl Checks {
    /// The interval in microseconds: zero if it is negative by at most [`CLAMP`], `None` if by more.
    fn interval(&mut self, incident: &IncidentTimes, name: &str, from: Timestamp, to: Timestamp) -> Option<i64> {
        let length = to.micros_since(from);
        if length >= 0 {
            return Some(length);
        }
        if length >= -micros(CLAMP) {
            self.clamped += 1;
            return Some(0);
        }
        self.exceptions.push(DataQuality {
            incident: incident.id.clone(),
            interval: name.to_owned(),
            secs: secs(length),
        });
        None
    }
}

fn detection(incidents: &[&IncidentTimes], checks: &mut Checks) -> Detection {
    let (mut total, mut source, mut detect, mut engine) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut known = 0;
    for incident in incidents {
        let lag = checks.interval(incident, "available to detected", incident.available, incident.detected);
        engine.extend(lag);
        let Some(occurred) = incident.occurred else { continue };
        known += 1;
        let before = checks.interval(incident, "occurred to available", occurred, incident.available);
        // Both parts are clamped on their own and the whole is their sum, so that the means add up.
        if let (Some(before), Some(lag)) = (before, lag) {
            source.push(before);
            detect.push(lag);
            total.push(before.saturating_add(lag));
        }
    }
    Detection {
        incidents: incidents.len() as u64,
        occurrence_known: known,
        occurrence_coverage_percent: percent(known, incidents.len() as u64),
        time_to_detect: Distribution::of(total),
        source_lag: Distribution::of(source),
        detection_lag: Distribution::of(detect),
        engine_detection_lag: Distribution::of(engine),
    }
}

fn dwell(incidents: &[&IncidentTimes], checks: &mut Checks) -> Distribution {
    let known = incidents.iter().filter_map(|incident| {
        checks.interval(incident, "occurred to detected", incident.occurred?, incident.detected)
    });
    Distribution::of(known.collect())
}

fn reopened(incidents: &[&IncidentTimes], checks: &mut Checks) -> Reopened {
    let again: Vec<_> = incidents.iter().filter(|incident| incident.reopened > 0).collect();
    let first = again.iter().filter_map(|incident| {
        checks.interval(incident, "detected to first remediated", incident.detected, incident.first_remediated?)
    });
    let first_fix = Distribution::of(first.collect());
    Reopened { incidents: again.len() as u64, percent: percent(again.len() as u64, incidents.len() as u64), first_fix }
}

/// One member of the family: when its clock starts and stops, and what ends the wait without the step.
struct Kind {
    name: &'static str,
    measures: &'static str,
    starts: fn(&IncidentTimes) -> Option<Timestamp>,
    stops: fn(&IncidentTimes) -> Option<Timestamp>,
    passes: fn(&IncidentTimes) -> Option<Timestamp>,
    limit: fn(&ResponseLimits) -> Option<Duration>,
}

/// A remedy counts from the moment it was made, but only once it was verified.
fn remedied(incident: &IncidentTimes) -> Option<Timestamp> {
    incident.verified.and(incident.remediated)
}

const KINDS: &[Kind] = &[
    Kind {
        name: "MTTA",
        measures: "mean time to acknowledge: detected to first human ownership",
        starts: |incident| Some(incident.detected),
        stops: |incident| incident.acknowledged,
        passes: |incident| incident.closed,
        limit: |limits| limits.acknowledge,
    },
    Kind {
        name: "MTTC",
        measures: "mean time to contain: detected to containment effective",
        starts: |incident| Some(incident.detected),
        stops: |incident| incident.contained,
        // Whatever is remedied can no longer be contained.
        passes: |incident| earliest(incident.remediated, incident.closed),
        limit: |limits| limits.contain,
    },
    Kind {
        name: "MTTRemediate",
        measures: "mean time to remediate: detected to remediation complete, once it is verified",
        starts: |incident| Some(incident.detected),
        stops: remedied,
        passes: |incident| incident.closed,
        limit: |limits| limits.remediate,
    },
    Kind {
        name: "Exposure",
        measures: "mean exposure: occurred to containment effective, where the occurrence is known",
        starts: |incident| incident.occurred,
        stops: |incident| incident.contained,
        passes: |incident| earliest(incident.remediated, incident.closed),
        limit: |_| None,
    },
];

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

impl Kind {
    fn over(&self, incidents: &[&IncidentTimes], request: &KpiRequest, checks: &mut Checks) -> Response {
        let mut unused = Checks::default();
        let by_level = by_level(incidents)
            .into_iter()
            .map(|(level, group)| (level, self.figures(&group, request, &mut unused)))
            .collect();
        Response {
            kind: self.name.to_owned(),
            measures: self.measures.to_owned(),
            figures: self.figures(incidents, request, checks),
            by_level,
        }
    }

    fn figures(&self, incidents: &[&IncidentTimes], request: &KpiRequest, checks: &mut Checks) -> ResponseFigures {
        let mut observations = Vec::new();
        let mut done = Vec::new();
        let mut open = Vec::new();
        let mut n_skipped = 0;
        let limit = (self.limit)(&request.limits).map(micros);
        let (mut within, mut past, mut pending) = (0, 0, 0);
        for incident in incidents {
            let Some(start) = (self.starts)(incident) else { continue };
            if let Some(stop) = (self.stops)(incident) {
                let name = format!("clock of {}", self.name);
                let Some(length) = checks.interval(incident, &name, start, stop) else { continue };
                done.push(length);
                observations.push(Observation { length, ended: true });
                let kept = limit.is_none_or(|limit| length <= limit);
                within += u64::from(kept);
                past += u64::from(!kept);
                continue;
            }
            let until = (self.passes)(incident);
            let length = until.unwrap_or(request.as_of).micros_since(start).max(0);
            observations.push(Observation { length, ended: false });
            if limit.is_some_and(|limit| length > limit) {
                past += 1;
            } else if until.is_none() {
                pending += 1;
            }
            match until {
                Some(_) => n_skipped += 1,
                None => open.push(OpenIncident { id: incident.id.clone(), age_secs: secs(length) }),
            }
        }
        open.sort_by(|one, other| other.age_secs.total_cmp(&one.age_secs).then_with(|| one.id.cmp(&other.id)));
        let limit = limit.map(|limit| Attainment {
            limit_secs: secs(limit),
            within,
            past,
            pending,
            percent: percent(within, within + past),
        });
        ResponseFigures {
            done: Distribution::of(done),
            n_open: open.len() as u64,
            open,
            n_skipped,
            survival: Survival::of(observations, micros(request.tau)),
            limit,
        }
    }
}

#[cfg(test)]
mod tests;
