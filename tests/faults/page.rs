//! `docs/faults.md`, from the rows of a long run and nothing else.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::row::{Holds, Row};

const HEAD: &str = "# Faults\n\n\
Written by `cargo test --test faults -- --long`; every number is from that run. A generator with a ledger of its own, synced before\n\
anything is sent, drives the real program. After each fault, what was sent, acknowledged, stored, found and delivered is compared with\n\
a single process that evaluates the same events from a file. F numbers are those of the fault matrix; rows marked **open** do not\n\
hold, or cannot be run, and say why.\n\n";

/// What the matrix has and this machine or this program does not.
pub(crate) fn open_rows() -> Vec<Row> {
    [
        ("F5", "bit flips in a search index", "there is no search index yet"),
        ("F15–F20", "PostgreSQL, Kafka and object storage", "these back ends do not exist yet"),
        ("F28", "an hour at 80 % of capacity", "the steady load above is shorter; `--soak 3600` runs an hour"),
    ]
    .into_iter()
    .map(|(fault, scenario, needs)| Row::left_out(fault, scenario, needs))
    .collect()
}

/// What takes the program of an earlier release to run.
pub(crate) fn no_older() -> Row {
    Row::left_out(
        "F21",
        "upgrade and downgrade between two releases",
        "`--older PROGRAM` names the earlier one; a store of the schema before is taken over under load above",
    )
}

pub(crate) fn write(rows: &[Row], how: &str) -> std::io::Result<PathBuf> {
    let mut text = HEAD.to_owned();
    let _written = writeln!(text, "{how}\n");
    text.push_str(
        "| fault | what | runs | sent | acked | stored | lost | twice | findings: expected, lost, twice | alerts: required, delivered, \
         lost, again (same key), again (other key) | recovery | holds |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let holds = match row.holds {
            Holds::Yes => "yes",
            Holds::No => "**open**",
            Holds::LeftOut => "**open** (not run)",
        };
        let numbers = if row.holds == Holds::LeftOut {
            " | | | | | | | | ".to_owned()
        } else {
            format!(
                "{} | {} | {} | {} | {} | {} | {}, {}, {} | {}, {}, {}, {}, {} | {:.1} s",
                row.runs,
                row.sent,
                row.acked,
                row.stored,
                row.lost_acked,
                row.dup_stored,
                row.findings_expected,
                row.findings_lost,
                row.findings_dup,
                row.alerts_required,
                row.alerts_delivered,
                row.alerts_lost,
                row.alerts_dup_wire,
                row.alerts_dup_key,
                row.recovery_s,
            )
        };
        let _written = writeln!(text, "| {} | {} | {numbers} | {holds} |", row.fault, row.scenario.replace('|', "\\|"));
    }
    text.push_str("\n## Notes\n\n");
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        let _written = writeln!(text, "- {} {}: {}", row.fault, row.scenario, row.note);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    std::fs::write(&path, text)?;
    Ok(path)
}
