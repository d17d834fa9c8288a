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

/// Decodes base64, and what is gzip inside. `None` if it is no base64, broken gzip, or more than is left.
pub(super) fn decode(text: &[u8], budget: &mut Budget) -> Option<Bytes> {
    if !budget.take(text.len() / 4 * 3) {
        return None;
    }
    let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(Bytes::from(bytes));
    }
    let allowed = bytes.len().saturating_mul(budget.ratio_max).max(budget.ratio_free).min(budget.left);
    let mut out = Vec::new();
    let limit = u64::try_from(allowed).ok()?.checked_add(1)?;
    flate2::bufread::MultiGzDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut out).ok()?;
    (out.len() <= allowed && budget.take(out.len())).then(|| Bytes::from(out))
}
