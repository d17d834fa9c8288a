//! Base64 and gzip inside JSON, within what a request may grow to.

use std::io::Read;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use crate::limits::Limits;

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// What may still be decoded for one request, bytes.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    ratio_max: usize,
    ratio_free: usize,
}

impl Budget {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            left: limits.inflated_bytes_max,
            ratio_max: limits.inflate_ratio_max,
            ratio_free: limits.inflate_ratio_free_bytes,
        }
    }

    /// Takes from what is left; false if that is too much.
    pub(super) const fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// What was encoded.
pub(super) enum Decoded {
    Bytes(Bytes),
    /// Compressed, and more than is left when it is not, or broken: it may hold secrets that cannot be seen.
    Hidden,
    /// No base64.
    Plain,
}

/// Decodes base64, and what is gzip inside.
pub(super) fn decode(text: &[u8], budget: &mut Budget) -> Decoded {
    if !budget.take(text.len() / 4 * 3) {
        return Decoded::Hidden;
    }
    let Ok(bytes) = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)) else { return Decoded::Plain };
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return inflate(&bytes, budget).map_or(Decoded::Hidden, Decoded::Bytes);
    }
    Decoded::Bytes(Bytes::from(bytes))
}

fn inflate(bytes: &[u8], budget: &mut Budget) -> Option<Bytes> {
    let allowed = bytes.len().saturating_mul(budget.ratio_max).max(budget.ratio_free).min(budget.left);
    let limit = u64::try_from(allowed).ok()?.checked_add(1)?;
    let mut out = Vec::new();
    flate2::bufread::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut out).ok()?;
    (out.len() <= allowed && budget.take(out.len())).then(|| Bytes::from(out))
}
