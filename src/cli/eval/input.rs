//! Lines of files with their place in time: which input goes on, and what time it is as the events tell it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::detect::Decoded;
use pipeproof_engine::record::RECORD_BYTES_MAX;
use pipeproof_engine::time::Timestamp;

use super::Failure;

/// One event that is further ahead than this does not move time: a clock somewhere is wrong. Two do.
const JUMP: Duration = Duration::from_secs(3_600);

/// Lines handed on at once, shared by all inputs, and how many such parts of each may wait: reading and decoding run
/// ahead of detection by that much.
const LINES: usize = 1_024;
const LINES_MIN: usize = 8;
const PARTS: usize = 4;

/// A file, or standard input: read and decoded line by line on a thread of its own.
pub(super) struct Input {
    pub(super) name: String,
    parts: Receiver<Part>,
    part: std::vec::IntoIter<Line>,
    /// Lines read.
    pub(super) line: u64,
    pub(super) bytes: u64,
    /// A record that was read ahead, to see which input goes on.
    ahead: Option<Pending>,
    /// When it is that record's turn. A wrong clock in one line does not hold up the lines behind it for long.
    pub(super) turn: Option<(Timestamp, u64)>,
}

/// What a line is: a record with its events, or why it is none.
type Line = (u64, Result<Decoded, String>);

#[derive(Default)]
struct Part {
    lines: Vec<Line>,
    /// Lines and bytes read since the part before.
    read: u64,
    bytes: u64,
    failed: Option<Failure>,
}

impl Input {
    /// Begins to read one of so many inputs. `decode` makes a record of the line of that number.
    pub(super) fn open(
        name: String,
        inputs: usize,
        decode: impl Fn(u64, Bytes) -> Result<Decoded, String> + Send + 'static,
    ) -> Result<Self, Failure> {
        let reader: Box<dyn BufRead + Send> = if name == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(&name).map_err(|source| Failure::Io { doing: format!("read {name}"), source })?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let (sender, parts) = sync_channel(PARTS);
        let lines = (LINES / inputs.max(1)).max(LINES_MIN);
        std::thread::Builder::new()
            .name("read events".to_owned())
            .spawn(move || read_lines(reader, lines, &decode, &sender))
            .map_err(|source| Failure::Io { doing: format!("start reading {name}"), source })?;
        Ok(Self { name, parts, part: Vec::new().into_iter(), line: 0, bytes: 0, ahead: None, turn: None })
    }

    /// Keeps the next record until it is its turn, and gives the one that was kept.
    pub(super) fn keep(&mut self, next: Option<Pending>) -> Option<Pending> {
        let latest = self.turn.map(|(last, _)| last.plus(JUMP));
        self.turn = next.as_ref().map(|pending| {
            let (time, index) = pending.order;
            (latest.map_or(time, |latest| time.min(latest)), index)
        });
        std::mem::replace(&mut self.ahead, next)
    }

    /// The next line that may be a record, with its number. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            if let Some(line) = self.part.next() {
                return Ok(Some(line));
            }
            // The thread ends after the last part.
            let Ok(part) = self.parts.recv() else { return Ok(None) };
            self.line += part.read;
            self.bytes += part.bytes;
            if let Some(failure) = part.failed {
                return Err(failure);
            }
            self.part = part.lines.into_iter();
        }
    }
}

/// Reads to the end, or until nobody wants more.
fn read_lines(
    mut reader: Box<dyn BufRead + Send>,
    lines: usize,
    decode: &dyn Fn(u64, Bytes) -> Result<Decoded, String>,
    sender: &SyncSender<Part>,
) {
    let mut text = Vec::new();
    let mut number = 0;
    let mut part = Part::default();
    loop {
        let next = next_line(&mut reader, &mut text, &mut part.bytes);
        let done = match next {
            Ok(None) => true,
            Ok(Some(line)) => {
                number += 1;
                part.read += 1;
                match line {
                    Ok([]) => {}
                    Ok(body) => part.lines.push((number, decode(number, Bytes::copy_from_slice(body)))),
                    Err(why) => part.lines.push((number, Err(why.to_owned()))),
                }
                false
            }
            Err(failure) => {
                part.failed = Some(failure);
                true
            }
        };
        let full = done || part.lines.len() >= lines;
        let unheard = full && sender.send(std::mem::take(&mut part)).is_err();
        if done || unheard {
            return;
        }
    }
}

/// The next line without white space around it, or why it cannot be a record. `None` at the end.
fn next_line<'t>(
    reader: &mut dyn BufRead,
    text: &'t mut Vec<u8>,
    bytes: &mut u64,
) -> Result<Option<Result<&'t [u8], &'static str>>, Failure> {
    text.clear();
    let limit = RECORD_BYTES_MAX as u64;
    let failed = |source| Failure::Io { doing: "read events".to_owned(), source };
    let read = io::Read::take(&mut *reader, limit).read_until(b'\n', text).map_err(failed)?;
    if read == 0 {
        return Ok(None);
    }
    *bytes += read as u64;
    if read as u64 == limit && text.last() != Some(&b'\n') {
        // Longer than a record may be: the rest of the line goes by unread.
        *bytes += skip_line(reader)?;
        return Ok(Some(Err("longer than 16 MiB")));
    }
    Ok(Some(Ok(text.trim_ascii())))
}

/// A decoded record with its place in time.
pub(super) struct Pending {
    pub(super) order: (Timestamp, u64),
    pub(super) decoded: Decoded,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    /// The earliest is the greatest: it leaves the heap first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.order.cmp(&self.order)
    }
}

/// Time as the events tell it.
#[derive(Default)]
pub(super) struct EventClock {
    now: Option<Timestamp>,
    /// A time far ahead that nothing has confirmed yet.
    ahead: Option<Timestamp>,
    /// The latest time any event told.
    pub(super) newest: Option<Timestamp>,
}

impl EventClock {
    /// Takes in the time of an event, and gives the time it is then.
    pub(super) fn observe(&mut self, time: Timestamp) -> Timestamp {
        self.newest = self.newest.max(Some(time));
        let Some(now) = self.now else {
            self.now = Some(time);
            return time;
        };
        let next = if time <= now.plus(JUMP) {
            now.max(time)
        } else {
            match self.ahead.replace(self.ahead.map_or(time, |ahead| ahead.max(time))) {
                Some(ahead) => ahead.min(time),
                None => now,
            }
        };
        self.now = Some(next);
        next
    }
}

fn skip_line(input: &mut dyn BufRead) -> Result<u64, Failure> {
    let mut skipped = 0;
    loop {
        let failed = |source| Failure::Io { doing: "read events".to_owned(), source };
        let (used, done) = {
            let buffer = input.fill_buf().map_err(failed)?;
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            }
        };
        input.consume(used);
        skipped += used as u64;
        if done {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_clock_does_not_move_time_and_a_pause_does() {
        let at = Timestamp::from_secs;
        let mut clock = EventClock::default();
        for (time, now) in [(100, 100), (50, 100), (130, 130), (9_999_999, 130), (140, 140)] {
            assert_eq!(clock.observe(at(time)), at(now), "{time}");
        }
        assert_eq!(clock.observe(at(100_000)), at(100_000));
        assert_eq!(clock.newest, Some(at(9_999_999)));
    }
}
