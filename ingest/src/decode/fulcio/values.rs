//! Where the values of DER begin and end, without reading what is in them: a certificate has about a hundred, and a dozen say
//! something. Lengths and tags are checked as `der` checks them.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const TEXT: u8 = 0x0c;
pub(super) const SEQUENCE: u8 = 0x30;
/// Of a name: an address of mail, `[1]`, and a URI, `[6]`.
pub(super) const MAIL: u8 = 0x81;
pub(super) const URI: u8 = 0x86;

/// Longest value that `der` reads.
const LENGTH_MAX: usize = 0x0fff_ffff;

/// Whether `der` knows a tag: of all kinds of the first class, and of the others by their number.
const TAGS: [bool; 256] = {
    let mut tags = [false; 256];
    let mut tag = 0;
    while tag < tags.len() {
        tags[tag] = matches!(tag, 0x01..=0x06 | 0x09 | 0x0a | 0x0c | 0x12..=0x18 | 0x1a | 0x1e | 0x30 | 0x31 | 0x40..)
            && tag % 0x20 != 0x1f;
        tag += 1;
    }
    tags
};

/// The tag of a part that has a number, `[0]`, and holds others.
pub(super) const fn tagged(number: u8) -> u8 {
    0xa0 | number
}

/// Values one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'d>(&'d [u8]);

impl<'d> Values<'d> {
    pub(super) const fn of(der: &'d [u8]) -> Self {
        Self(der)
    }

    /// What was not stepped over.
    pub(super) const fn rest(&self) -> &'d [u8] {
        self.0
    }

    /// Tag and inside of the next value, which has to be whole.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (tag, short, rest) = match self.0 {
            [tag, short, rest @ ..] => (*tag, *short, rest),
            _ => return None,
        };
        if !TAGS.get(usize::from(tag)).is_some_and(|known| *known) {
            return None;
        }
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
                let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                // No longer than it has to be.
                let shortest = length >= 0x80 && bytes.first() != Some(&0);
                (Some(length).filter(|length| shortest && *length <= LENGTH_MAX)?, rest)
            }
            _ => return None,
        };
        let inside;
        (inside, self.0) = rest.split_at_checked(length)?;
        Some((tag, inside))
    }

    /// The inside of the next value, if it has this tag.
    #[inline]
    pub(super) fn next_as(&mut self, tag: u8) -> Option<&'d [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, inside)| inside)
    }
}

/// The inside of a value with this tag, where nothing comes after it.
pub(super) fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    let mut values = Values(der);
    values.next_as(tag).filter(|_| values.0.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_that_der_knows() {
        for tag in 0..=u8::MAX {
            assert_eq!(TAGS[usize::from(tag)], der::Tag::try_from(tag).is_ok(), "{tag:#x}");
        }
    }
}
