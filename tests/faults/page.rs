//! `docs/faults.md`, from the rows of a long run and nothing else.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::row::{Counted, Holds, Row};

const HEAD: &str = "# Faults\n\n\
Written by `cargo test --test faults -- --long`; every number is from such runs. A generator with a ledger of its own, synced before\n\
anything is sent, drives the real program, and sends again with the same bytes whatever was not answered. After each fault the lake is\n\
compared with the ledger byte for byte, every finding of every rule with what a single process finds in a file of everything that was\n\
sent, and what must be told with what the receiver took, by what each message is about; a receiver checks every signature. F numbers are\n\
those of the fault matrix; rows marked **open** do not hold, or cannot be run, and say why. A dash stands where nothing was counted. Where\n\
arrival decides what a rule that counts finds (F9, F10), findings of single events are compared alone.\n\n";

const INVARIANTS: &str = "\n## Invariants\n\n\
A node counts in `pipeproof_invariant_violations_total` what it can see of itself. Positions and the tree it checks all the time:\n\
`detected_is_durable`, `archived_is_detected`, `retired_is_archived`, `tree_is_whole`, `commit_continues`. What takes the records\n\
themselves it counts at `doctor --verify`: `acknowledged_is_stored` (a record of the log that the lake does not have), `stored_once`,\n\
`found_as_reference` (findings derived again differ). Whether everything that was *sent* is there, and whether *another* process finds the same,\n\
no node can know: these runs compare with a ledger and a reference of their own.\n";

/// What the matrix has and this machine or this program does not.
pub(crate) fn open_rows() -> Vec<Row> {
    [
        ("F5", "bit flips in a search index", "there is no search index yet"),
        ("F15–F20", "PostgreSQL, Kafka and object storage", "these back ends do not exist yet"),
    ]
    .into_iter()
    // They stand for no run, and are of no tree.
    .map(|(fault, scenario, needs)| Row {
        started: String::new(),
        commit: String::new(),
        ..Row::left_out(fault, scenario, needs)
    })
    .collect()
}

/// From which commits the rows are, in the order they come in.
fn commits(rows: &[Row]) -> String {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for row in rows.iter().filter(|row| !row.commit.is_empty()) {
        match counts.iter_mut().find(|(commit, _)| *commit == row.commit) {
            Some((_, count)) => *count += 1,
            None => counts.push((row.commit.as_str(), 1)),
        }
    }
    let named: Vec<String> = counts.iter().map(|(commit, count)| format!("{count} from commit `{commit}`")).collect();
    let mut text = if named.is_empty() { String::new() } else { format!("Rows: {}", named.join(", ")) };
    let nameless = rows.iter().filter(|row| row.commit.is_empty() && row.holds != Holds::LeftOut).count();
    if nameless > 0 {
        text.push_str(if named.is_empty() { "Rows: " } else { ", " });
        text.push_str(&format!("{nameless} that do not say from which"));
    }
    if counts.iter().any(|(commit, _)| commit.ends_with('+')) {
        text.push_str("; `+` stands for a tree that differed from its commit");
    }
    if text.is_empty() { text } else { text + "." }
}

/// What takes the program of an earlier release to run.
pub(crate) fn no_older() -> Row {
    Row::left_out(
        "F21",
        "upgrade and downgrade between two releases",
        "`--older PROGRAM` names the earlier one; a store of schema version 3 is taken over under load above, of every version in a test of the store",
    )
}

pub(crate) fn write(rows: &[Row], how: &str) -> std::io::Result<PathBuf> {
    let mut text = HEAD.to_owned();
    let _written = writeln!(text, "{how}\n{}\n", commits(rows));
    text.push_str(
        "| fault | what | runs | sent | acked | stored | lost | twice | findings: expected, lost, twice | alerts: required, delivered, \
         lost, again (same key), again (other key) | recovery | holds |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let holds = match row.holds {
            Holds::Yes => "yes",
            Holds::No => "**open**",
            Holds::NotJudged => "not judged",
            Holds::LeftOut => "**open** (not run)",
        };
        let numbers = if row.holds == Holds::LeftOut {
            " | | | | | | | | ".to_owned()
        } else {
            let numbers = |are_counted: bool, numbers: &[u64], between: &str| {
                let text = |number: &u64| if are_counted { number.to_string() } else { "–".to_owned() };
                numbers.iter().map(text).collect::<Vec<_>>().join(between)
            };
            let Counted { events, findings, alerts } = row.counted;
            let recovery = if row.recovery_s > 0.0 { format!("{:.1} s", row.recovery_s) } else { "–".to_owned() };
            format!(
                "{} | {} | {} ({} by several events) | {} | {recovery}",
                row.runs,
                numbers(events, &[row.sent, row.acked, row.stored, row.lost_acked, row.dup_stored], " | "),
                numbers(findings, &[row.findings_expected, row.findings_lost, row.findings_dup], ", "),
                numbers(findings, &[row.correlated], ""),
                numbers(
                    alerts,
                    &[
                        row.alerts_required,
                        row.alerts_delivered,
                        row.alerts_lost,
                        row.alerts_dup_wire,
                        row.alerts_dup_key
                    ],
                    ", "
                ),
            )
        };
        let _written = writeln!(text, "| {} | {} | {numbers} | {holds} |", row.fault, row.scenario.replace('|', "\\|"));
    }
    text.push_str("\n## Notes\n\n");
    for row in rows {
        let _written = write!(text, "- {} {}", row.fault, row.scenario);
        // What nothing has run has none.
        if row.holds != Holds::LeftOut || !row.commit.is_empty() {
            let _written = write!(text, " (seed {})", row.seed);
        }
        let _written = if row.note.is_empty() { writeln!(text) } else { writeln!(text, ": {}", row.note) };
    }
    text.push_str(INVARIANTS);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    std::fs::write(&path, text)?;
    Ok(path)
}
