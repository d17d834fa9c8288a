//! OTLP over HTTP, logs: `POST /v1/logs` as Protocol Buffers or JSON (OpenTelemetry Protocol 1.x, "OTLP/HTTP").
//!
//! What cannot be read is kept as a dead letter and named as a warning in `partial_success`, with nothing rejected: a
//! client must not send it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeproof_ingest::receive::Framing;
use serde_json::json;

use super::ApiError;
use super::body::read;
use super::sender::{Sender, bound};
use crate::node::Shared;

const PROTOBUF: &str = "application/x-protobuf";

pub(crate) async fn logs(
    State(shared): State<Arc<Shared>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protobuf = media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PROTOBUF);
    let framing = if protobuf { Framing::OtlpProtobuf } else { Framing::OtlpJson };
    let taken = async {
        let allowed = bound(&shared, &sender, None)?;
        let body = read(&shared, allowed.standing(), &headers, body).await?;
        if body.is_empty() {
            // A request without records: Protocol Buffers write it in no bytes at all.
            return Ok(0);
        }
        let taken = allowed.take(&shared, framing, headers, BTreeMap::new(), body).await?;
        Ok(taken.unread)
    };
    let warning = match taken.await {
        Ok(0) => None,
        Ok(_) => Some("the body is not an ExportLogsServiceRequest; it was kept as a dead letter"),
        Err(error) => return refused(&error, protobuf),
    };
    match (protobuf, warning) {
        (true, warning) => {
            // ExportLogsServiceResponse { partial_success = 1: { error_message = 2 } }.
            let inner = warning.map(|text| field(2, text.as_bytes()));
            let answer = inner.map(|inner| field(1, &inner)).unwrap_or_default();
            ([(header::CONTENT_TYPE, PROTOBUF)], answer).into_response()
        }
        (false, None) => Json(json!({})).into_response(),
        (false, Some(warning)) => {
            Json(json!({ "partialSuccess": { "rejectedLogRecords": "0", "errorMessage": warning } })).into_response()
        }
    }
}

/// `google.rpc.Status { message = 2 }` in the encoding of the request.
fn refused(error: &ApiError, protobuf: bool) -> Response {
    if !protobuf {
        return error.answer(json!({ "message": error.message() }));
    }
    let mut response = error.answer(json!(null));
    let status: StatusCode = response.status();
    let retry = response.headers_mut().remove(header::RETRY_AFTER);
    let mut response =
        (status, [(header::CONTENT_TYPE, PROTOBUF)], field(2, error.message().as_bytes())).into_response();
    if let Some(retry) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    response
}

/// A length-delimited field of Protocol Buffers.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = content.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).unwrap_or_default() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap_or_default());
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_length_delimited() {
        assert_eq!(field(1, b"ab"), [0x0a, 2, b'a', b'b']);
        assert_eq!(field(2, &[0; 300])[..3], [0x12, 0xac, 0x02]);
    }
}
