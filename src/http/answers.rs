//! What the API answers: JSON, and errors as `{"error": {"code", "message"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::registry::TokenRefusal;

/// A handler's result.
pub(crate) type Answer = Result<Json<Value>, ApiError>;

/// An error as the client sees it. What only the operator should see was logged before.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// What a program can make of it besides.
    details: Option<Box<(&'static str, Value)>>,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into(), details: None }
    }

    /// With something for programs beside code and message.
    pub(crate) fn with(mut self, name: &'static str, details: Value) -> Self {
        self.details = Some(Box::new((name, details)));
        self
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The response in another protocol's words.
    pub(crate) fn answer(&self, body: Value) -> Response {
        self.with_headers((self.status, Json(body)).into_response())
    }

    fn with_headers(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }

    /// Try again soon.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "unavailable", message)
    }

    /// Something of ours failed: the log has it, the client a name for it.
    pub(crate) fn internal(doing: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |error| {
            tracing::error!(error = %crate::chain(&*error), "cannot {doing}");
            Self::new(500, "internal", format!("cannot {doing}; the server's log says why"))
        }
    }
}

/// A JSON body. What is wrong with it is said in the API's own form.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> axum::extract::FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, ApiError> {
        let bytes = bytes::Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::new(error.status().as_u16(), "bad_request", error.body_text()))?;
        let parsed = serde_json::from_slice(&bytes);
        parsed
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the body is not what this route takes: {error}")))
    }
}

/// Query parameters, with the same care.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> axum::extract::FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        parsed.map(|query| Self(query.0)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// Turns any error into an internal one.
pub(crate) fn internal<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl FnOnce(E) -> ApiError {
    move |error| ApiError::internal(doing)(Box::new(error))
}

impl From<TokenRefusal> for ApiError {
    fn from(refusal: TokenRefusal) -> Self {
        let code = match refusal {
            TokenRefusal::Missing => "token_missing",
            TokenRefusal::Unknown => "token_unknown",
            TokenRefusal::Expired => "token_expired",
        };
        Self::new(401, code, refusal.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(error), Some(details)) = (error.as_object_mut(), self.details.as_deref()) {
            error.insert(details.0.to_owned(), details.1.clone());
        }
        self.answer(json!({ "error": error }))
    }
}
