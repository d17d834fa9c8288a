//! Says in the log when a source has been silent for longer than it usually is, and when it speaks again (catalogue: LOG-01). Detection
//! learns what is usual and makes the findings; what is too long is decided here, once, and on record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::control::Control;
use pipeproof_engine::silence::Silence;
use pipeproof_engine::time::Timestamp;
use serde::Deserialize;

use crate::node::{Shared, next_second};

/// By how much the usual pause must be exceeded.
const TIMES_USUAL: u32 = 3;
/// How old what detection told may be.
const FRESH: Duration = Duration::from_secs(60);

/// When a source is silent for too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long a source is listened to first.
    pub(crate) learn: Duration,
    /// No silence is too long before this.
    pub(crate) after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { learn: Duration::from_secs(7 * 86_400), after: Duration::from_secs(15 * 60) }
    }
}

/// As the configuration says it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPatience {
    /// How long a source is listened to before its silence is judged, such as `7d`. 7 days unless set.
    learn: Option<String>,
    /// The least silence that is too long, such as `15m`. 15 minutes unless set.
    after: Option<String>,
}

impl RawPatience {
    pub(crate) fn checked(&self, problems: &mut Vec<String>) -> Patience {
        let mut patience = Patience::default();
        let spans = [("learn", &self.learn, &mut patience.learn), ("after", &self.after, &mut patience.after)];
        for (name, text, set) in spans {
            let Some(text) = text else { continue };
            match pipeproof_engine::time::parse_span(text) {
                Some(span) if !span.is_zero() => *set = span,
                _ => problems.push(format!("silence.{name}: `{text}` is not a span such as 15m or 7d")),
            }
        }
        patience
    }
}

/// What was written down and has not come back from detection yet.
#[derive(Debug, Default)]
struct Said {
    silent: BTreeMap<String, Timestamp>,
    heard: BTreeMap<String, Timestamp>,
}

impl Patience {
    /// How long this source may be silent.
    fn allows(self, silence: &Silence) -> Duration {
        self.after.max(silence.usual.unwrap_or_default().saturating_mul(TIMES_USUAL))
    }

    /// How it stands with a source, for lists of sources.
    pub(crate) fn told(self, silence: &Silence) -> serde_json::Value {
        serde_json::json!({
            "silent_s": silence.silent.as_secs(),
            "usual_s": silence.usual.map(|usual| usual.as_secs()),
            "allowed_s": self.allows(silence).as_secs(),
            "learning_until": (!self.knows(silence)).then(|| silence.began.plus(self.learn)),
            "silent_since": silence.told,
        })
    }

    /// Whether it was listened to for long enough.
    fn knows(self, silence: &Silence) -> bool {
        let spoken = silence.last.micros_since(silence.began);
        u128::try_from(spoken).is_ok_and(|spoken| spoken >= self.learn.as_micros())
    }

    /// What is to be said of a source, if anything.
    fn judge(self, silence: &Silence) -> Option<Control> {
        let name = silence.source.clone();
        match silence.told {
            None if self.knows(silence) && silence.silent >= self.allows(silence) => {
                let usual = silence.usual.map_or_else(|| "never".to_owned(), span);
                let reason = format!(
                    "it last spoke at {}, {} ago by its usual hours; of 100 of its pauses 99 are at most {usual}, and {} are allowed",
                    silence.last,
                    span(silence.silent),
                    span(self.allows(silence)),
                );
                Some(Control::SourceSilent { name, since: silence.last, reason })
            }
            Some(since) if silence.last > since => {
                Some(Control::SourceHeard { name, note: format!("it had said nothing since {since}") })
            }
            _ => None,
        }
    }
}

impl Said {
    /// Whether this is said for the first time.
    fn is_new(&mut self, control: &Control, silence: &Silence) -> bool {
        match control {
            Control::SourceSilent { name, since, .. } => self.silent.insert(name.clone(), *since) != Some(*since),
            Control::SourceHeard { name, .. } => {
                let since = silence.told.unwrap_or_default();
                self.heard.insert(name.clone(), since) != Some(since)
            }
            _ => false,
        }
    }
}

/// A time in its largest whole units.
fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let Some(patience) = shared.patience else { return };
    let mut stopping = shared.stopping.subscribe();
    let mut said = Said::default();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(next_second(shared.clock.now())) => {}
        }
        let status = shared.status();
        // Of what is long ago the log may say more.
        if status.as_of.plus(FRESH) < shared.clock.now() {
            continue;
        }
        for silence in &status.silences {
            let Some(control) = patience.judge(silence).filter(|control| said.is_new(control, silence)) else {
                continue;
            };
            if let Control::SourceSilent { name, reason, .. } = &control {
                tracing::warn!(source = name, reason, "a source is silent");
            }
            if let Err(error) = shared.control(control).await {
                tracing::warn!(source = silence.source, error = %error, "cannot write down that a source is silent or speaks again");
                said = Said::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(spoken: u64, silent: u64, usual: Option<u64>, told: Option<i64>) -> Silence {
        let last = Timestamp::from_secs(1_000_000);
        Silence {
            source: "hooks".to_owned(),
            began: last.minus(Duration::from_secs(spoken)),
            last,
            usual: usual.map(Duration::from_secs),
            silent: Duration::from_secs(silent),
            told: told.map(Timestamp::from_secs),
        }
    }

    #[test]
    fn three_times_its_usual_pause_is_too_long_and_at_least_a_quarter_of_an_hour() {
        let week = 7 * 86_400;
        let is_silent = |spoken, silent, usual| {
            let said = Patience::default().judge(&silence(spoken, silent, usual, None));
            said.is_some_and(|said| matches!(said, Control::SourceSilent { .. }))
        };
        assert!(is_silent(week, 900, Some(20)) && !is_silent(week, 899, Some(20)));
        assert!(is_silent(week, 1_500, Some(500)) && !is_silent(week, 1_499, Some(500)));
        assert!(is_silent(week, 900, None), "it never paused for a second");
        assert!(!is_silent(week - 1, 90_000, Some(20)), "nobody knows it yet");
    }

    #[test]
    fn it_is_said_once_that_it_is_silent_and_that_it_speaks() {
        let patience = Patience::default();
        let mut said = Said::default();
        let mut says = |silence: &Silence| {
            let control = patience.judge(silence)?;
            said.is_new(&control, silence).then_some(control)
        };
        let mute = silence(7 * 86_400, 3_600, Some(60), None);
        let Some(Control::SourceSilent { reason, .. }) = says(&mute) else { panic!("it is said") };
        assert!(reason.contains("1 h 0 min ago") && reason.ends_with("15 min 0 s are allowed"), "{reason}");
        assert_eq!(says(&mute), None, "detection has not read it yet");
        assert_eq!(says(&silence(7 * 86_400, 9_000, Some(60), Some(1_000_000))), None, "nothing has changed");
        let heard = silence(7 * 86_400, 1, Some(60), Some(990_000));
        assert!(matches!(says(&heard), Some(Control::SourceHeard { .. })));
        assert_eq!(says(&heard), None);
    }
}
