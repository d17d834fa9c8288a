//! Strings of a JSON text: where one ends, looked for among many bytes at once, and its escapes taken out.

/// Bytes that are looked at at once where a string begins: most end within them.
const STEP: usize = 32;
/// Bytes of a string after which it is taken for a long one.
const LONG: usize = 4 * STEP;
/// Bytes that are looked at at once in a long string.
const BLOCK: usize = 128;
/// Bytes that are marked at once.
const WINDOW: usize = 256;

/// Whether this is neither a quote nor a backslash nor a control character.
const fn is_plain_byte(byte: u8) -> bool {
    // With this bit turned a quote follows the last control character, and nothing else comes to stand below it.
    (byte ^ 0x02 > 0x20) & (byte != b'\\')
}

/// Whether all of a text stands in a string as it is.
pub(super) fn is_plain(text: &[u8]) -> bool {
    // To look at all of it is quicker than to look for the first that does not.
    text.iter().fold(true, |plain, byte| plain & is_plain_byte(*byte))
}

/// The search for what ends plain text: a part of the text is marked at once, as strings are mostly shorter than what a
/// processor can look at.
#[derive(Debug)]
pub(super) struct PlainText<'t> {
    bytes: &'t [u8],
    /// Whether bytes are plain, from `from` on: those that are not have all their bits.
    marks: [u8; WINDOW],
    from: usize,
}

impl<'t> PlainText<'t> {
    pub(super) const fn of(bytes: &'t [u8]) -> Self {
        // Nothing is marked yet.
        Self { bytes, marks: [0; WINDOW], from: usize::MAX / 2 }
    }

    /// The first place from `at` on that holds a quote, a backslash or a control character, or the end of the text.
    #[inline]
    pub(super) fn end(&mut self, at: usize) -> usize {
        let mut place = at;
        loop {
            let marked = self.marks.get(place.wrapping_sub(self.from)..).and_then(<[u8]>::first_chunk::<STEP>);
            let Some(marks) = marked else {
                self.mark(place);
                continue;
            };
            let (halves, _) = marks.as_chunks::<{ STEP / 2 }>();
            for (half, before) in halves.iter().zip([0, STEP / 2]) {
                let marks = u128::from_le_bytes(*half);
                if marks != 0 {
                    return place + before + marks.trailing_zeros() as usize / 8;
                }
            }
            place += STEP;
            if place == at + LONG {
                place = self.after_blocks(place);
            }
        }
    }

    /// The place of the quote that ends a string, where the plain text of that ends at `at`.
    pub(super) fn end_of_string(&mut self, mut at: usize) -> Option<usize> {
        loop {
            match self.bytes.get(at)? {
                b'"' => return Some(at),
                // What follows a backslash ends nothing.
                b'\\' => at = self.end(at + 2),
                _ => return None,
            }
        }
    }

    /// Marks what comes from here on; beyond its end a text is not plain.
    #[inline(never)]
    fn mark(&mut self, from: usize) {
        let rest = self.bytes.get(from..).unwrap_or_default();
        let mut last = [b'"'; WINDOW];
        let window = rest.first_chunk().unwrap_or_else(|| {
            last.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
            &last
        });
        for (mark, byte) in self.marks.iter_mut().zip(window) {
            *mark = if is_plain_byte(*byte) { 0 } else { u8::MAX };
        }
        self.from = from;
    }

    #[inline(never)]
    fn after_blocks(&self, mut at: usize) -> usize {
        while self.bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>).is_some_and(|block| is_plain(block)) {
            at += BLOCK;
        }
        at
    }
}

/// Appends the inside of a string without its escapes; `None` where one is invalid or half of a surrogate pair.
pub(crate) fn unescape(text: &str, into: &mut String) -> Option<()> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        into.push_str(rest.get(..at)?);
        rest = rest.get(at..)?;
        let (char, len) = escape(rest)?;
        into.push(char);
        rest = rest.get(len..)?;
    }
    into.push_str(rest);
    Some(())
}

/// The character that the escape at the beginning of a text stands for, and the length of the escape.
pub(super) fn escape(text: &str) -> Option<(char, usize)> {
    let char = match *text.as_bytes().get(1)? {
        escaped @ (b'"' | b'\\' | b'/') => char::from(escaped),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let hex = text.get(2..6).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            // Halves of a pair are no characters.
            return Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, 6));
        }
        _ => return None,
    };
    Some((char, 2))
}
