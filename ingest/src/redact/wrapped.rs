//! Secrets inside base64, once or twice: the form in which stolen memory was printed into job logs in the
//! tj-actions/changed-files attack of March 2025.
//!
//! A keyword encoded in base64 leaves one of three character sequences, by its place modulo three. One Aho–Corasick
//! pass looks for all of them; only around a find the run of base64 is decoded and scanned.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::detectors::{Detectors, Family, Hit};
use super::pem::OpenKey;

/// How many times a text may be wrapped.
pub(crate) const DEPTH_MAX: usize = 2;
/// Shortest run that can hold a secret of any family.
const RUN_CHARS_MIN: usize = 24;
/// How far around a find a run is followed. Other secrets of a longer run are found by their own keywords.
const RUN_BYTES_MAX: usize = 64 << 10;
/// How much of what was read already is read again, so that a secret at the border is read whole.
const RUN_BYTES_SHARED: usize = 8 << 10;
/// A line of base64 at least this long may go on in the next one: encoders break at 60, 64 or 76.
const LINE_CHARS_MIN: usize = 60;
/// Most bytes of one thing that a log writes before a line.
const PREFIX_BYTES_MAX: usize = 80;
/// Most such things before one line.
const PREFIXES_MAX: usize = 4;
/// Longest sequence that sets a colour.
const ESCAPE_BYTES_MAX: usize = 16;

/// What the text inside must contain, as it is usually written.
const INNER: &[&str] = &[
    "PRIVATE KEY-----",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "AKIA",
    "secret_access_key",
    "SECRET_ACCESS_KEY",
    "SecretAccessKey",
    "secretAccessKey",
    "IQoJb3JpZ2lu",
    "AIza",
    "ya29.",
    "GOCSPX-",
    "glpat-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "gloas-",
    "glsoat-",
    "glffct-",
    "AccountKey=",
    "SharedAccessKey=",
    "glwt-",
    "GR1348941",
    "pypi-Ag",
    "sk_live_",
    "rk_live_",
    "sk_test_",
    "rk_test_",
    "whsec_",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxs-",
    "xoxe",
    "xapp-",
    "hooks.slack.com",
    "npm_",
    "hvs.",
    "hvb.",
    "hvr.",
    "\"isSecret\":true",
    "eyJhbGci",
    "eyJ0eXAi",
    "eyJraWQi",
    "eyJ4NXQi",
    "uthorization: B",
];

#[derive(Debug)]
pub(crate) struct Wrapped {
    fragments: AhoCorasick,
    decoder: GeneralPurpose,
}

impl Wrapped {
    #[allow(clippy::expect_used, reason = "the fragments come from constants of this file; every test builds them")]
    pub(crate) fn new() -> Self {
        let mut all = Vec::new();
        for word in INNER {
            let once = fragments(word.as_bytes());
            all.extend(once.iter().flat_map(|fragment| fragments(fragment.as_bytes())));
            all.extend(once);
        }
        let fragments = AhoCorasickBuilder::new()
            .kind(Some(AhoCorasickKind::DFA))
            .build(all)
            .expect("the fragments fit an automaton");
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        Self { fragments, decoder: GeneralPurpose::new(&STANDARD, config) }
    }

    pub(crate) fn suspects(&self, text: &[u8]) -> bool {
        self.fragments.is_match(text)
    }

    /// Scans the runs of base64 that may hold a secret.
    pub(crate) fn scan(&self, detectors: &Detectors, text: &[u8], wraps: usize, hits: &mut Vec<Hit>) {
        let Some(wraps) = wraps.checked_sub(1) else { return };
        let mut done = 0;
        // Where the last hit ends, and what was in it.
        let mut covered = 0;
        let mut known = BTreeSet::new();
        for found in self.fragments.find_iter(text) {
            if found.start() < done {
                continue;
            }
            let parts = run(text, done.saturating_sub(RUN_BYTES_SHARED), found.range());
            let (Some(first), Some(last)) = (parts.first(), parts.last()) else { continue };
            let range = first.start..last.end;
            done = range.end.max(found.end());
            let chars: Vec<u8> = parts
                .iter()
                .flat_map(|part| text.get(part.clone()).unwrap_or_default())
                .filter(|char| **char != b'=')
                .map(|char| match char {
                    b'-' => b'+',
                    b'_' => b'/',
                    other => *other,
                })
                .collect();
            if chars.len() < RUN_CHARS_MIN {
                continue;
            }
            // Whatever stands glued before the text shifts it.
            for shift in 0..4 {
                let inner = self.decode(chars.get(shift..).unwrap_or_default());
                let mut inside = Vec::new();
                detectors.scan_depth(&inner, wraps, &mut OpenKey::default(), &mut inside);
                if inside.is_empty() {
                    continue;
                }
                let mut secrets: Vec<(Family, Vec<u8>)> = inside.into_iter().flat_map(|hit| hit.found).collect();
                let all: BTreeSet<_> = secrets.iter().cloned().collect();
                // What is read for the second time was counted the first time. It goes all the same.
                if range.start < covered && !all.is_subset(&known) {
                    secrets.retain(|secret| !known.contains(secret));
                }
                known = all;
                hits.push(Hit { range: range.start.max(covered)..range.end, found: secrets });
                covered = range.end;
                break;
            }
        }
    }

    fn decode(&self, chars: &[u8]) -> Vec<u8> {
        // A single character at the end holds no byte.
        let len = chars.len() - usize::from(chars.len() % 4 == 1);
        self.decoder.decode(chars.get(..len).unwrap_or_default()).unwrap_or_default()
    }
}

/// The characters that `word` leaves in base64 for certain, at each of the three alignments.
fn fragments(word: &[u8]) -> Vec<String> {
    (0..3)
        .map(|before| {
            let padded = [&[0; 3][..before], word, &[0; 3]].concat();
            let encoded = base64::engine::general_purpose::STANDARD.encode(padded);
            let (first, after) = ((before * 8).div_ceil(6), (before + word.len()) * 8 / 6);
            encoded.get(first..after).unwrap_or_default().to_owned()
        })
        .collect()
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// The run of base64 around a place, line by line when it goes over several, from `floor` on.
fn run(text: &[u8], floor: usize, around: Range<usize>) -> Vec<Range<usize>> {
    let floor = floor.max(around.start.saturating_sub(RUN_BYTES_MAX));
    let ceiling = text.len().min(around.end.saturating_add(RUN_BYTES_MAX));
    let text = text.get(..ceiling).unwrap_or(text);
    let mut parts = vec![line_run(text, floor, around)];
    while let Some(before) = parts.last().and_then(|part| previous_line(text, floor, part)) {
        parts.push(before);
    }
    parts.reverse();
    while let Some(after) = parts.last().and_then(|part| next_line(text, part)) {
        parts.push(after);
    }
    parts
}

fn line_run(text: &[u8], floor: usize, around: Range<usize>) -> Range<usize> {
    let before = text.get(floor..around.start).unwrap_or_default();
    let after = text.get(around.end..).unwrap_or_default();
    let start = around.start - before.iter().rev().take_while(|byte| is_base64(**byte)).count();
    let start = behind_colour(text, start).filter(|behind| *behind <= around.start).unwrap_or(start);
    let end = around.end + after.iter().take_while(|byte| is_base64(**byte)).count();
    let padding = text.get(end..).unwrap_or_default().iter().take_while(|byte| **byte == b'=').count();
    start..end + padding.min(2)
}

/// Where a run starts that begins in what sets a colour (`ESC [33m`), whose digits and letter look like base64.
fn behind_colour(text: &[u8], start: usize) -> Option<usize> {
    let before = text.get(start.saturating_sub(ESCAPE_BYTES_MAX)..start)?;
    let codes = before.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    if !before.get(..before.len() - codes)?.ends_with(b"\x1b[") {
        return None;
    }
    let digits = text.get(start..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (text.get(start + digits) == Some(&b'm')).then_some(start + digits + 1)
}

/// The run that is the whole next line, when this one is long and ends its line. What a log writes before a line is no part
/// of it: known by its form, or as wide as before this one.
fn next_line(text: &[u8], part: &Range<usize>) -> Option<Range<usize>> {
    if part.len() < LINE_CHARS_MIN {
        return None;
    }
    let rest = text.get(part.end..)?;
    let rest = rest.get(colour_len(rest)..)?;
    let rest = rest.strip_prefix(b"\r").unwrap_or(rest).strip_prefix(b"\n")?;
    let line_start = text.len() - rest.len();
    let before = text.get(..part.start)?;
    let column = before.iter().rev().take(PREFIX_BYTES_MAX).take_while(|byte| **byte != b'\n').count();
    let run_at = |start: usize| {
        let next = line_run(text, start, start..start);
        let after = text.get(next.end..).unwrap_or_default();
        let ends_line = matches!(after.get(colour_len(after)), None | Some(b'\r' | b'\n'));
        (next.start == start && !next.is_empty() && ends_line).then_some(next)
    };
    run_at(line_start + prefix_len(rest)).or_else(|| {
        // As wide, and no longer than this one: encoders break where a line is full.
        let same_line = rest.get(..column)?.iter().all(|byte| *byte != b'\n');
        let glued = rest.get(..column)?.last().is_some_and(|byte| is_base64(*byte));
        if !same_line || glued {
            return None;
        }
        run_at(line_start + column).filter(|next| next.len() <= part.len())
    })
}

/// The run that is the whole previous line, when it is long and this one starts its line.
fn previous_line(text: &[u8], floor: usize, part: &Range<usize>) -> Option<Range<usize>> {
    let before = text.get(floor..part.start)?;
    let line_start = floor + before.iter().rposition(|byte| *byte == b'\n')? + 1;
    let starts_line = line_start + prefix_len(text.get(line_start..)?) == part.start;
    let line_end = line_start - 1;
    let line_end = line_end - usize::from(text.get(floor..line_end)?.ends_with(b"\r"));
    let line_end = line_end
        - COLOUR_ENDS
            .iter()
            .find(|end| text.get(floor..line_end).is_some_and(|line| line.ends_with(end)))
            .map_or(0, |end| end.len());
    let before = text.get(floor..line_end)?;
    let previous_start = before.iter().rposition(|byte| *byte == b'\n').map_or(floor, |newline| floor + newline + 1);
    let start = previous_start + prefix_len(text.get(previous_start..line_end)?);
    let run = line_run(text, floor, line_end..line_end);
    let as_wide = run.start.saturating_sub(previous_start) == part.start - line_start && run.len() >= part.len();
    let whole = (starts_line && run.start == start) || as_wide;
    (run.end == line_end && whole && run.len() >= LINE_CHARS_MIN).then_some(run)
}

/// Length of what logs write before a line: several things where one log is read by another.
fn prefix_len(line: &[u8]) -> usize {
    let mut at = 0;
    for _ in 0..PREFIXES_MAX {
        let rest = line.get(at..).unwrap_or_default();
        let len = [stamp_len, bracket_len, escape_len, service_len].iter().map(|len| len(rest)).max().unwrap_or(0);
        if len == 0 {
            break;
        }
        at += len;
    }
    at
}

/// A job log's time stamp (`2025-03-15T01:02:03.1234567Z `); GitLab's runner adds number and kind of its stream (`00O `).
fn stamp_len(line: &[u8]) -> usize {
    let is_stamp = line.get(..20).is_some_and(|head| {
        head.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            19 => matches!(byte, b'.' | b'Z'),
            _ => byte.is_ascii_digit(),
        })
    });
    if !is_stamp {
        return 0;
    }
    let head = line.get(..32).unwrap_or(line);
    let len = head.windows(2).position(|pair| pair == b"Z ").map_or(0, |at| at + 2);
    match line.get(len..) {
        Some([one, two, b'O' | b'E', b' ' | b'+', ..]) if one.is_ascii_hexdigit() && two.is_ascii_hexdigit() => len + 4,
        _ => len,
    }
}

/// `[2026-11-20T10:00:00.120Z] ` of Jenkins' Timestamper, `[pod/app/main] ` of kubectl.
fn bracket_len(line: &[u8]) -> usize {
    let head = line.get(..PREFIX_BYTES_MAX).unwrap_or(line);
    if head.first() != Some(&b'[') {
        return 0;
    }
    head.windows(2).position(|pair| pair == b"] ").map_or(0, |at| at + 2)
}

/// What sets a time (`ESC _bk;t=1764583200000 BEL` of Buildkite) or a colour.
fn escape_len(line: &[u8]) -> usize {
    let head = line.get(..PREFIX_BYTES_MAX).unwrap_or(line);
    let end = match head {
        [0x1b, b'_', ..] => head.iter().position(|byte| *byte == 0x07),
        [0x1b, b'[', ..] => head.iter().position(u8::is_ascii_alphabetic),
        _ => None,
    };
    end.map_or(0, |at| at + 1)
}

/// What ends a colour behind a line.
const COLOUR_ENDS: [&[u8]; 2] = [b"\x1b[0m", b"\x1b[m"];

fn colour_len(text: &[u8]) -> usize {
    COLOUR_ENDS.iter().find(|end| text.starts_with(end)).map_or(0, |end| end.len())
}

/// `app_1  | ` of Docker Compose.
fn service_len(line: &[u8]) -> usize {
    let head = line.get(..PREFIX_BYTES_MAX).unwrap_or(line);
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b' ');
    let len = head.iter().take_while(|byte| name(byte)).count();
    if len > 0 && line.get(len..).is_some_and(|rest| rest.starts_with(b"| ")) { len + 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_occur_wherever_the_word_stands() {
        for word in INNER {
            for before in 0..6 {
                let text = format!("{}{word}tail", "p".repeat(before));
                let once = base64::engine::general_purpose::STANDARD.encode(&text);
                let all = fragments(word.as_bytes());
                assert!(all.iter().any(|fragment| once.contains(fragment.as_str())), "{word} after {before}");
                assert!(all.iter().all(|fragment| fragment.len() >= 4));
            }
        }
    }

    #[test]
    fn stamps() {
        assert_eq!(stamp_len(b"2025-10-25T14:46:09.6953658Z Current"), 29);
        assert_eq!(stamp_len(b"2025-10-25T14:46:09Z x"), 21);
        assert_eq!(stamp_len(b"2025-10-25"), 0);
        assert_eq!(stamp_len(b"abcdefghijklmnopqrstuvwxyz"), 0);
        assert_eq!(stamp_len(b"2025-10-25T14:46:09.695365Z 00O+x"), 32);
    }

    #[test]
    fn what_logs_write_before_a_line() {
        for prefix in [
            "2025-10-25T14:46:09.6953658Z ",
            "[2026-11-20T10:00:00.120Z] ",
            "\u{1b}_bk;t=1764583200000\u{7}",
            "app_1  | ",
            "app_1  | 2025-10-25T14:46:09.6953658Z ",
            "[pod/app-7d4b9c/main] \u{1b}[0;32m",
            "",
        ] {
            assert_eq!(prefix_len(format!("{prefix}Z2hwX2Fi").as_bytes()), prefix.len(), "{prefix:?}");
        }
        assert_eq!(prefix_len(b"a|b"), 0);
    }
}
