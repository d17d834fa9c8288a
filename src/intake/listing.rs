//! Listings of a store as its client takes them: one key that it does not take would cost the whole listing, and whoever may write
//! to a bucket could stop it from being read.

pub(super) use pipeproof_ingest::objects::listing::readable;

/// Largest answer with a listing, bytes: a thousand keys of 1,024 bytes, escaped, and what is said of them.
pub(super) const LISTING_BYTES_MAX: usize = 16 << 20;

/// Whether a request asks for a listing of a bucket.
pub(super) fn is_listing(uri: &http::Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "list-type=2"))
}
