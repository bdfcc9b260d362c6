//! Rejections of requests, in the error format of OpenAI's API.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use text::error::TextError;

use crate::error::LmError;

/// Rejection of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    /// Name of the offending field.
    param: Option<String>,
    code: Option<&'static str>,
}

/// Maximum number of characters of a message and of a field's name, both of which may repeat the request.
const CHARACTERS: usize = 500;

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: cut(message.into()), param: None, code: None }
    }

    /// Rejects a field's value.
    pub(super) fn field(param: impl Into<String>, allowed: impl AsRef<str>, given: impl ToString) -> Self {
        let param = param.into();
        let message = format!("{param}: expected {}, got {}", allowed.as_ref(), given.to_string());
        Self::new(StatusCode::BAD_REQUEST, message).with_param(&param)
    }

    /// Rejects a body as a whole.
    pub(super) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The rejection if the model's thread has ended.
    pub(super) fn gone() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the model is no longer available")
    }

    pub(super) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn with_param(self, param: &str) -> Self {
        Self { param: Some(cut(param.to_owned())), ..self }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The rejection for an invalid request, or for an error of the server.
    pub(super) fn of(error: &LmError, param: &str) -> Self {
        match error {
            LmError::Setting { field, allowed, given } => Self::field(*field, allowed, given),
            LmError::Record { allowed, given, .. } => Self::field(param, allowed, given),
            LmError::Text(error) => Self::of_text(error, param),
            error => Self::internal(&error.to_string()),
        }
    }

    /// The rejection of a text that cannot be tokenized.
    pub(super) fn of_text(error: &TextError, param: &str) -> Self {
        match error {
            TextError::Unusable { source, .. } => Self::of_text(source, param),
            TextError::Record { allowed, given, .. } => Self::field(param, allowed, given),
            TextError::Template { problem, .. } | TextError::Tokenizer { problem, .. } => {
                Self::body(format!("{param}: {problem}")).with_param(param)
            }
            error => Self::internal(&error.to_string()),
        }
    }

    /// The rejection for an error of the server. Only the first line of an error is kept, without libtorch's stack
    /// trace.
    pub(super) fn internal(error: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.lines().next().unwrap_or_default())
    }

    /// JSON of the rejection.
    pub(super) fn json(&self) -> Value {
        let Self { status, message, param, code } = self;
        let kind = match *status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl Refusal {
    /// The refusal as a complete HTTP response.
    pub(super) fn http(&self) -> String {
        let body = self.json().to_string();
        let length = body.len();
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nretry-after: 1\r\n\
             connection: close\r\n\r\n{body}",
            self.status
        )
    }
}

/// Truncates a text if it is long.
pub(super) fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(CHARACTERS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
