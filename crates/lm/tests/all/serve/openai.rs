//! OpenAI's own client: its requests are answered, or rejected with the field's name. `tests/oracles/openai_client.py`
//! recorded them, and sends them to a server here if `OPENAI_PYTHON` is a Python with the client.

use std::process::Command;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::running::{Running, limits};
use super::{run, spelling};
use crate::oracle::{answers, oracles};

/// Sends a recorded request.
async fn replay(running: &Running, request: &Value) -> (StatusCode, Value) {
    let method: Method = request["method"].as_str().unwrap().parse().unwrap();
    let mut sent = Client::new().request(method, running.url(request["path"].as_str().unwrap()));
    for (name, text) in request["headers"].as_object().unwrap() {
        sent = sent.header(name, text.as_str().unwrap());
    }
    if !request["body"].is_null() {
        sent = sent.body(request["body"].to_string());
    }
    let response = sent.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    let last = text.trim_end().lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| json!(last)))
}

#[test]
fn every_request_of_the_openai_client_that_asks_for_nothing_more_is_answered() {
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    run(async {
        let recorded = answers("openai_client.json");
        let requests = recorded["accepted"].as_array().unwrap();
        assert!(requests.len() > 120);
        for request in requests {
            let (status, answer) = replay(&running, request).await;
            assert_eq!(status, StatusCode::OK, "{}: {answer}", request["name"]);
            if request["body"]["stream"] == true {
                assert_eq!(answer, "[DONE]", "{}", request["name"]);
            }
        }
    });
}

#[test]
fn every_request_of_the_openai_client_for_what_is_not_supported_is_refused_by_name() {
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    run(async {
        let recorded = answers("openai_client.json");
        for request in recorded["refused"].as_array().unwrap() {
            let (status, answer) = replay(&running, request).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{}: {answer}", request["name"]);
            let error = &answer["error"];
            assert_eq!(error["param"], request["name"], "{answer}");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("{}: expected ", request["name"].as_str().unwrap())), "{message}");
        }
    });
}

#[test]
fn the_openai_client_itself_is_answered_where_it_is_installed() {
    let Ok(python) = std::env::var("OPENAI_PYTHON") else {
        eprintln!("skipped: OPENAI_PYTHON is no Python with the package openai");
        return;
    };
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    let output = Command::new(python)
        .current_dir(oracles())
        .args(["openai_client.py", &running.url("/v1"), "tiny"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
