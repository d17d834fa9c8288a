//! The parts of a message of Protocol Buffers without decoding them ("Encoding", wire types).

use bytes::{Buf as _, Bytes};
use prost::{DecodeError, decode_length_delimiter};

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotOtlp;

impl From<DecodeError> for NotOtlp {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Calls `take` with every length-delimited field of this number, in their order. Other fields are skipped.
///
/// # Errors
/// [`NotOtlp`] where the message is none, or of `take`; nothing behind it is read.
pub(super) fn each(
    message: &Bytes,
    number: usize,
    mut take: impl FnMut(Bytes) -> Result<(), NotOtlp>,
) -> Result<(), NotOtlp> {
    let mut rest = message.clone();
    while !rest.is_empty() {
        // A key is a number of variable length, as a length is.
        let key = decode_length_delimiter(&mut rest)?;
        let skipped = match key & 0b111 {
            0 => {
                decode_length_delimiter(&mut rest)?;
                continue;
            }
            1 => 8,
            2 => decode_length_delimiter(&mut rest)?,
            5 => 4,
            // Groups, which these messages never had.
            _ => return Err(NotOtlp),
        };
        if skipped > rest.len() {
            return Err(NotOtlp);
        }
        if key == number << 3 | 2 {
            take(rest.split_to(skipped))?;
        } else {
            rest.advance(skipped);
        }
    }
    Ok(())
}
