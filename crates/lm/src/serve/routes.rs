//! Which request is answered by what, and who may ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::metrics::Answered;
use super::refusal::Refusal;
use super::{Server, chat, completions};

/// How Prometheus' text is called.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v1/completions", post(completions::answer))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route_layer(from_fn_with_state(Arc::clone(&server), authorize))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(async |uri: Uri| Refusal::new(StatusCode::NOT_FOUND, format!("{}: no such route", uri.path())))
        .method_not_allowed_fallback(async |uri: Uri| {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{}: another method is needed", uri.path()))
        })
        .layer(from_fn_with_state(Arc::clone(&server), count))
        .with_state(server)
}

impl Server {
    /// What every part of an answer of this kind has beside its own fields.
    pub(super) fn frame(&self, prefix: &str, object: &'static str) -> impl Fn(Value) -> Value + Clone + Send + 'static {
        static ANSWERS: AtomicU64 = AtomicU64::new(0);
        let id = format!("{prefix}-{:x}-{}", self.created, ANSWERS.fetch_add(1, Ordering::Relaxed));
        let (model, created) = (self.settings.name.clone(), super::now());
        move |mut own| {
            own["id"] = id.as_str().into();
            own["object"] = object.into();
            own["created"] = created.into();
            own["model"] = model.as_str().into();
            own
        }
    }

    fn model(&self) -> Value {
        json!({"id": self.settings.name, "object": "model", "created": self.created, "owned_by": "lm"})
    }
}

async fn authorize(State(server): State<Arc<Server>>, request: Request, next: Next) -> Result<Response, Refusal> {
    let Some(key) = &server.settings.api_key else { return Ok(next.run(request).await) };
    let given = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let given = given.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
    // Hashes are compared in a time that tells nothing of them.
    if blake3::hash(given.as_bytes()) == blake3::hash(key.as_bytes()) {
        return Ok(next.run(request).await);
    }
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "expected the API key as Authorization: Bearer");
    Err(refusal.with_code("invalid_api_key"))
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

async fn model(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    if name == server.settings.name {
        return Ok(Json(server.model()));
    }
    let message = format!("model: expected {:?}, got {name:?}", server.settings.name);
    Err(Refusal::new(StatusCode::NOT_FOUND, message).with_param("model").with_code("model_not_found"))
}

async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    let fail = |error: std::fmt::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    Ok(([(CONTENT_TYPE, METRICS)], server.metrics.text().map_err(fail)?).into_response())
}
