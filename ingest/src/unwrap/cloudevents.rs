//! CloudEvents in binary mode: what the event says about itself stands in headers (CloudEvents 1.0, "HTTP Protocol
//! Binding" §3.1). It is put back together, so that both modes give the same event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::source::SourceType;
use http::HeaderMap;
use percent_encoding::percent_decode;
use pipeproof_engine as engine;
use serde_json::{Map, Value};

/// Whether items of a type are CloudEvents. The others may travel in one; then its data is the item.
pub(crate) const fn is_event(kind: SourceType) -> bool {
    matches!(kind, SourceType::Json | SourceType::Cloudevents | SourceType::Cdevents | SourceType::Jenkins)
}

/// The event in structured form, if headers and body are one in binary mode and the type takes events.
pub(crate) fn structured(kind: SourceType, headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    if !is_event(kind) || !headers.contains_key("ce-specversion") {
        return None;
    }
    let mut event = Map::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        event.insert(attribute.to_owned(), percent_decode(value.as_bytes()).decode_utf8_lossy().into());
    }
    let content = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(content) = content {
        event.insert("datacontenttype".to_owned(), content.into());
    }
    if !body.is_empty() {
        let (name, data) = data(content, body);
        event.insert(name.to_owned(), data);
    }
    Some(Bytes::from(Value::Object(event).to_string()))
}

fn data(content: Option<&str>, body: &Bytes) -> (&'static str, Value) {
    let media = content.unwrap_or("application/json").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if (media.ends_with("/json") || media.ends_with("+json"))
        && let Ok(json) = serde_json::from_slice(body)
    {
        return ("data", json);
    }
    match std::str::from_utf8(body) {
        Ok(text) => ("data", text.into()),
        Err(_) => ("data_base64", STANDARD.encode(body).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)], body: &'static [u8]) -> Option<Value> {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        let event = structured(SourceType::Json, &headers, &Bytes::from_static(body))?;
        Some(serde_json::from_slice(&event).unwrap())
    }

    #[test]
    fn headers_and_body_become_the_event() {
        let named = [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/ci/acme%20app"),
            ("ce-type", "dev.cdevents.pipelinerun.finished.0.2.0"),
            ("ce-subject", "Euro%E2%82%AC"),
            ("authorization", "Bearer secret"),
        ];
        let json =
            of(&[&named[..], &[("content-type", "application/json; charset=utf-8")]].concat(), b"{\"a\":[1]}").unwrap();
        assert_eq!(json["data"], serde_json::json!({"a": [1]}));
        assert_eq!((&json["source"], &json["subject"]), (&"/ci/acme app".into(), &"Euro€".into()));
        assert!(!json.to_string().contains("secret"), "{json}");
        let text = of(&[&named[..], &[("content-type", "text/plain")]].concat(), b"{\"a\":1}").unwrap();
        assert_eq!(text["data"], "{\"a\":1}");
        assert_eq!(of(&named, b"\xff").unwrap()["data_base64"], "/w==");
        assert!(of(&named, b"").unwrap().get("data").is_none());
        assert_eq!(of(&[("ce-id", "7")], b"{}"), None, "no event without a version");
    }
}
