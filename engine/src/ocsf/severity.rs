//! `severity_id`: how severe the source calls what it reports. Most events are no alarm, and informational.

use super::taken::Taken;
use crate::fields::Field;

/// Id and caption.
pub(super) fn of(taken: &Taken<'_>) -> (u8, String) {
    let word = taken.text(Field::AlertSeverity).or_else(|| taken.text(Field::ScanSeverity));
    let Some(word) = word else { return (1, "Informational".to_owned()) };
    let (id, caption) = match word {
        // Syslog's words, as Falco has them, and those of scanners; Tracee counts from 0.
        "emergency" | "fatal" => (6, "Fatal"),
        "alert" | "critical" => (5, "Critical"),
        "error" | "high" | "3" => (4, "High"),
        "warning" | "warn" | "medium" | "moderate" | "2" => (3, "Medium"),
        "notice" | "low" | "1" => (2, "Low"),
        "informational" | "info" | "debug" | "none" | "0" => (1, "Informational"),
        "unknown" => (0, "Unknown"),
        other => return (99, other.to_owned()),
    };
    (id, caption.to_owned())
}
