//! Routes of the server, and authorization.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Extension, MatchedPath, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError};
use serde_json::{Value, json};

use super::metrics::Answered;
use super::places::Place;
use super::refusal::Refusal;
use super::request::short;
use super::{Limits, Server, chat, completions, origin};

/// Media type of JSON.
const JSON: &str = "application/json";
/// Media type of metrics in the format of Prometheus.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn router(server: Arc<Server>) -> Router {
    let received = from_fn_with_state(Arc::clone(&server), receive);
    Router::new()
        .route("/v1/completions", post(completions::answer).route_layer(received.clone()))
        .route("/v1/chat/completions", post(chat::answer).route_layer(received))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route_layer(from_fn_with_state(Arc::clone(&server), authorize))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(async |uri: Uri| Refusal::new(StatusCode::NOT_FOUND, format!("{}: no such route", uri.path())))
        .method_not_allowed_fallback(async |uri: Uri| {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{}: this route needs another method", uri.path()))
        })
        // Bodies are bounded in `receive`.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&server), check_origin))
        .layer(from_fn_with_state(Arc::clone(&server), count))
        .with_state(server)
}

impl Server {
    /// The rejection of a request for another model.
    pub(super) fn no_such_model(&self, name: &str) -> Refusal {
        let (own, given) = (Value::from(self.settings.name.as_str()), Value::from(name));
        let refusal = Refusal::field("model", own.to_string(), short(&given)).with_status(StatusCode::NOT_FOUND);
        refusal.with_code("model_not_found")
    }

    fn model(&self) -> Value {
        json!({"id": self.settings.name, "object": "model", "created": self.created, "owned_by": "lm"})
    }
}

async fn authorize(State(server): State<Arc<Server>>, request: Request, next: Next) -> Result<Response, Refusal> {
    let Some(key) = &server.settings.api_key else { return Ok(next.run(request).await) };
    let given = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let given = given.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
    // Comparing hashes takes a time that reveals nothing about the key.
    if blake3::hash(given.as_bytes()) == blake3::hash(key.as_bytes()) {
        return Ok(next.run(request).await);
    }
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "expected the API key as Authorization: Bearer");
    Err(refusal.with_code("invalid_api_key"))
}

async fn check_origin(State(server): State<Arc<Server>>, request: Request, next: Next) -> Result<Response, Refusal> {
    origin::check(&server.settings, request.uri(), request.headers())?;
    Ok(next.run(request).await)
}

/// Receives a JSON body within the time limit, and then keeps the connection open until the answer has ended.
async fn receive(
    State(server): State<Arc<Server>>,
    Extension(place): Extension<Place>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|header| header.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(JSON) {
        let given = if kind.is_empty() { "nothing".to_owned() } else { short(&Value::from(kind)) };
        return Err(Refusal::field("Content-Type", JSON, given).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let Limits { body_bytes, request: time, .. } = server.settings.limits;
    let (parts, body) = request.into_parts();
    let Ok(read) = tokio::time::timeout(time, to_bytes(body, body_bytes)).await else {
        let message = format!("the request did not arrive within {} s", time.as_secs_f64());
        return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message));
    };
    let body = read.map_err(|error| {
        let is_long = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .any(|error| error.is::<LengthLimitError>());
        match is_long {
            true => {
                let message = format!("body: expected at most {body_bytes} bytes");
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            false => Refusal::body(format!("body: {error}")),
        }
    })?;
    let answering = place.answer();
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let ended = move |frame| {
        _ = &answering;
        frame
    };
    Ok(response.map(|body| Body::new(body.map_frame(ended))))
}

async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    server.metrics.requests.get_or_create(&Answered { route, status: response.status().as_u16() }).inc();
    server.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    response
}

async fn health(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    match server.jobs.is_closed() {
        true => Err(Refusal::gone()),
        false => Ok(Json(json!({"status": "ok"}))),
    }
}

async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [server.model()]}))
}

async fn model(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    match name {
        Ok(Path(name)) if name == server.settings.name => Ok(Json(server.model())),
        Ok(Path(name)) => Err(server.no_such_model(&name)),
        Err(_) => Err(Refusal::field("model", "a name in UTF-8", "other bytes")),
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    let fail = |error: std::fmt::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    Ok(([(CONTENT_TYPE, METRICS)], server.metrics.text().map_err(fail)?).into_response())
}
