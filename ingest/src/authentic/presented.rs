//! The API token that a request presents, wherever its sender puts one. Nobody has looked at it yet: it is anybody's bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

/// Header in which Firehose sends its access key.
const FIREHOSE_KEY: &str = "x-amz-firehose-access-key";

/// The token a sender presents: as bearer (RFC 6750), in HEC's scheme, as password (RFC 7617), as Elastic's API key, or as Firehose's
/// access key.
#[must_use]
pub fn presented(headers: &HeaderMap) -> Option<String> {
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return headers.get(FIREHOSE_KEY)?.to_str().ok().map(str::to_owned);
    };
    let (scheme, given) = given.to_str().ok()?.split_once(' ')?;
    let given = given.trim();
    let decoded = || String::from_utf8(STANDARD.decode(given).ok()?).ok();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "splunk" => Some(given.to_owned()),
        "basic" => Some(decoded()?.split_once(':')?.1.to_owned()),
        "apikey" => {
            let decoded = decoded()?;
            Some(decoded.split_once(':').map_or(decoded.as_str(), |(_, key)| key).to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let value = http::HeaderValue::from_bytes(value);
        value.map(|value| HeaderMap::from_iter([(http::HeaderName::from_static(name), value)])).unwrap_or_default()
    }

    #[test]
    fn a_token_is_found_wherever_senders_put_it() {
        for (value, token) in [
            ("Bearer t", Some("t")),
            ("bearer  t ", Some("t")),
            ("Splunk t", Some("t")),
            // anyone:t:u, id:t and t.
            ("Basic YW55b25lOnQ6dQ==", Some("t:u")),
            ("ApiKey aWQ6dA==", Some("t")),
            ("ApiKey dA==", Some("t")),
            ("Basic dA==", None),
            ("Basic %", None),
            ("Digest t", None),
            ("t", None),
        ] {
            assert_eq!(presented(&with("authorization", value.as_bytes())).as_deref(), token, "{value}");
        }
        assert_eq!(presented(&with("x-amz-firehose-access-key", b"t")).as_deref(), Some("t"));
        assert_eq!(presented(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(scheme in "(Basic|ApiKey|Bearer|.{0,6}) ?", value in proptest::collection::vec(any::<u8>(), 0..60), encoded: bool) {
            let value = if encoded { STANDARD.encode(&value).into_bytes() } else { value };
            drop(presented(&with("authorization", &[scheme.as_bytes(), &value].concat())));
        }
    }
}
