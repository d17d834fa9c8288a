//! A KPI report as text for a terminal.

use std::fmt::Write as _;

use super::distribution::Distribution;
use super::{KpiReport, Response};

/// Writes a number of seconds as people say it: `0.42 s`, `42.1 s`, `4 min 2 s`, `10 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn duration(secs: f64) -> String {
    if !secs.is_finite() {
        return "unknown".to_owned();
    }
    if secs < 0.0 {
        return format!("-{}", duration(-secs));
    }
    if secs < 9.995 {
        return format!("{secs:.2} s");
    }
    if secs < 59.95 {
        return format!("{secs:.1} s");
    }
    // Rounded first, so that 59.96 s and 3599.6 s do not read as 60 of the smaller unit.
    let whole = secs.round() as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600, whole / 60, whole % 60);
    match whole {
        0..3_600 => format!("{minutes} min {rest} s"),
        3_600..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn maybe(secs: Option<f64>) -> String {
    secs.map_or_else(|| "not reached".to_owned(), duration)
}

impl Distribution {
    /// `mean …, median …, p90 …, max …`, or the values themselves where there are fewer than ten.
    #[must_use]
    pub fn in_words(&self) -> String {
        let (Some(mean), Some(median)) = (self.mean_secs, self.median_secs) else { return "no occurrence".to_owned() };
        let mut text = format!("mean {}, median {}", duration(mean), duration(median));
        if let Some((low, high)) = self.mean_interval_secs {
            text = format!(
                "mean {} (95 % interval {} to {}), median {}",
                duration(mean),
                duration(low),
                duration(high),
                duration(median)
            );
        }
        if self.values_secs.is_empty() {
            if let (Some(p90), Some(max)) = (self.p90_secs, self.max_secs) {
                text.push_str(&format!(", p90 {}, max {}", duration(p90), duration(max)));
            }
        } else {
            let values: Vec<String> = self.values_secs.iter().copied().map(duration).collect();
            text.push_str(&format!(" (n={}: {})", self.n, values.join(", ")));
            return text;
        }
        text.push_str(&format!(" (n={})", self.n));
        text
    }
}

impl KpiReport {
    /// The report for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _written = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let cohort = &self.cohort;
        writeln!(out, "Incidents detected from {} until before {}, as known at {}", self.from, self.to, self.as_of)?;
        writeln!(
            out,
            "  {} detected: {} counted ({} of them found in hindsight), {} dismissed as false positives, {} exercises",
            cohort.detected, cohort.counted, cohort.retro, cohort.dismissed, cohort.exercises
        )?;
        let detect = &self.detect;
        writeln!(out, "\nMTTD  mean time to detect: occurred to first finding")?;
        writeln!(out, "  time to detect         {}", detect.time_to_detect.in_words())?;
        writeln!(out, "  = source, ingest lag   {}", detect.source_lag.in_words())?;
        writeln!(out, "  + detection lag        {}", detect.detection_lag.in_words())?;
        if let Some(percent) = detect.occurrence_coverage_percent {
            let (known, of) = (detect.occurrence_known, detect.incidents);
            writeln!(out, "  occurrence known for   {known} of {of} ({percent} %); the others are not in MTTD")?;
        }
        writeln!(out, "  engine detection lag   {}", detect.engine_detection_lag.in_words())?;
        for (level, figures) in &self.detect_by_level {
            writeln!(out, "    {level:<20} {}", figures.time_to_detect.in_words())?;
        }
        if self.retro.incidents > 0 {
            writeln!(
                out,
                "\nFound only in hindsight (backfill, or events older than their source's connection): {}; not in MTTD\n  \
                 unseen for             {}",
                self.retro.incidents,
                self.retro.dwell.in_words()
            )?;
        }
        for response in &self.response {
            writeln!(out)?;
            write_response(out, response)?;
        }
        if self.reopened.incidents > 0 {
            let percent = self.reopened.percent.unwrap_or_default();
            writeln!(
                out,
                "\nReopened: {} ({percent} %); first fix {}",
                self.reopened.incidents,
                self.reopened.first_fix.in_words()
            )?;
        }
        if self.clamped > 0 {
            writeln!(out, "\n{} intervals negative by at most 5 s count as zero", self.clamped)?;
        }
        for wrong in &self.data_quality {
            writeln!(
                out,
                "\nleft out: {} of {} is negative ({})",
                wrong.interval,
                wrong.incident,
                duration(wrong.secs)
            )?;
        }
        Ok(())
    }
}

fn write_response(out: &mut String, response: &Response) -> std::fmt::Result {
    let figures = &response.figures;
    writeln!(out, "{}  {}", response.kind, response.measures)?;
    writeln!(out, "  done                   {}", figures.done.in_words())?;
    if figures.n_open > 0 {
        let ages: Vec<String> =
            figures.open.iter().take(10).map(|open| format!("{} {}", open.id, duration(open.age_secs))).collect();
        let more = if figures.open.len() > 10 { ", ..." } else { "" };
        writeln!(out, "  open                   {} ({}{more})", figures.n_open, ages.join(", "))?;
    }
    if figures.n_skipped > 0 {
        writeln!(out, "  never recorded         {} went past this step without it", figures.n_skipped)?;
    }
    let survival = &figures.survival;
    if survival.n > 0 {
        writeln!(
            out,
            "  with open ones         median {}, p90 {}, restricted mean to {} {} (Kaplan-Meier, n={})",
            maybe(survival.median_secs),
            maybe(survival.p90_secs),
            duration(survival.tau_secs),
            maybe(survival.rmst_secs),
            survival.n
        )?;
    }
    if let Some(limit) = &figures.limit
        && limit.within + limit.past + limit.pending > 0
    {
        let percent = limit.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
        writeln!(
            out,
            "  within {:<15} {percent} ({} within, {} past, {} pending)",
            duration(limit.limit_secs),
            limit.within,
            limit.past,
            limit.pending
        )?;
    }
    Ok(())
}
