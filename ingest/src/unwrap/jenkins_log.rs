//! The log of Jenkins' audit-trail plugin: text, an entry a line, except that scripts go over lines.

use std::ops::Range;

use bytes::Bytes;

use super::lines;

/// Its entries, no more than one beyond `max`: each starts with a date (`MMM d, yyyy …`), and a line that does not belongs
/// to the one before. Where no line starts with a date, as syslog senders cut it off, each is an entry.
pub(super) fn entries(text: &Bytes, max: usize) -> Vec<Bytes> {
    let starts = |line: &Range<usize>| text.get(line.clone()).is_some_and(is_dated);
    let any = lines(text).any(|line| starts(&line));
    let mut found: Vec<Range<usize>> = Vec::new();
    for line in lines(text) {
        let full = found.len() > max;
        match found.last_mut().filter(|_| any && !starts(&line)) {
            Some(entry) => entry.end = line.end,
            None if full => break,
            None => found.push(line),
        }
    }
    found.into_iter().map(|range| text.slice(range)).collect()
}

fn is_dated(line: &[u8]) -> bool {
    let [a, b, c, b' ', rest @ ..] = line else { return false };
    let comma = rest.iter().take(3).position(|byte| *byte == b',');
    [a, b, c].iter().all(|byte| byte.is_ascii_alphabetic()) && comma.is_some_and(|comma| comma > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_stay_in_their_entry() {
        let of = |text: &'static str| entries(&Bytes::from_static(text.as_bytes()), 10);
        let script =
            "Nov 3, 2026 4:05:06,123 PM A groovy script was executed by user 'ann'. \nThe executed script: \nprintln 1";
        let log: &'static str =
            Box::leak(format!("{script}\nNov 3, 2026 4:05:07,001 PM /exit by ann\n").into_boxed_str());
        assert_eq!(of(log), [script, "Nov 3, 2026 4:05:07,001 PM /exit by ann"]);
        assert_eq!(of("/a by x\n\n/b by y\n"), ["/a by x", "/b by y"]);
        assert_eq!(entries(&Bytes::from_static(b"a\nb\nc\nd"), 2).len(), 3, "one beyond, to be refused");
    }
}
