//! Access to a server on a loopback address: allowed to programs and pages of this machine, and denied to pages of
//! other sites. Invalid requests get an error in JSON.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::run;
use super::running::{Running, limits};
use crate::oracle::checkpoint;

#[test]
fn a_page_of_another_site_reaches_no_route_whatever_name_it_gave_this_machine() {
    let running = Running::tiny("llama");
    run(async {
        let client = Client::new();
        let body = json!({"prompt": [1], "max_tokens": 1});
        let cases = [
            ("localhost", None, 200),
            ("127.0.0.1:1", Some("http://localhost:3000"), 200),
            ("evil.example", None, 403),
            ("localhost.evil.example", None, 403),
            ("localhost", Some("http://evil.example"), 403),
            ("localhost", Some("null"), 403),
        ];
        for (host, origin, expected) in cases {
            let with = |request: reqwest::RequestBuilder| {
                let request = request.header("Host", host);
                origin.into_iter().fold(request, |request, origin| request.header("Origin", origin))
            };
            for request in [
                client.post(running.url("/v1/completions")).json(&body),
                client.get(running.url("/v1/models")),
                client.get(running.url("/health")),
                client.get(running.url("/metrics")),
            ] {
                let response = with(request).send().await.unwrap();
                assert_eq!(response.status().as_u16(), expected, "{host} {origin:?}");
                if expected == 403 {
                    let answer: Value = response.json().await.unwrap();
                    let message = answer["error"]["message"].as_str().unwrap();
                    assert!(message.contains("--host-name"), "{message}");
                }
            }
        }
    });
}

#[test]
fn only_json_is_taken_as_a_page_may_send_anything_else_without_leave() {
    let running = Running::tiny("llama");
    run(async {
        let body = json!({"prompt": [1], "max_tokens": 1}).to_string();
        for (kind, status) in [
            (None, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (Some("text/plain"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (Some("application/x-www-form-urlencoded"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (Some("application/json"), StatusCode::OK),
            (Some("Application/JSON; charset=utf-8"), StatusCode::OK),
        ] {
            let request = Client::new().post(running.url("/v1/completions")).body(body.clone());
            let request = kind.into_iter().fold(request, |request, kind| request.header("Content-Type", kind));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{kind:?}");
            let answer: Value = response.json().await.unwrap();
            assert_eq!(
                answer["error"]["param"],
                if status == StatusCode::OK { Value::Null } else { json!("Content-Type") }
            );
        }
    });
}

#[test]
fn paths_that_are_no_text_are_refused_as_json() {
    let running = Running::tiny("llama");
    run(async {
        for (path, status) in [("/v1/models/%ff", 400), ("/v1/models/b%C3%A9", 404), ("/%ff%fe", 404)] {
            let response = reqwest::get(running.url(path)).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(response.headers()["content-type"], "application/json");
            let answer: Value = response.json().await.unwrap();
            assert_eq!(answer["error"]["type"], "invalid_request_error");
        }
    });
    assert!(running.raw(b"GET /v1/models/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn a_key_that_is_there_twice_and_a_long_name_are_refused_briefly() {
    let running = Running::of(&checkpoint("llama"), limits(), None);
    run(async {
        for (body, param, message) in [
            (
                r#"{"prompt": [1], "seed": 1, "seed": 2}"#.to_owned(),
                "seed",
                "seed: expected one value, got a second one",
            ),
            (format!("{{\"{}\": 1}}", "a".repeat(5000)), "", "unknown field"),
            (
                format!("{{\"prompt\": [1], \"model\": \"{}\"}}", "a".repeat(5000)),
                "model",
                "expected \"tiny\", got \"aaaa",
            ),
        ] {
            let request = Client::new().post(running.url("/v1/completions")).header("Content-Type", "application/json");
            let text = request.body(body).send().await.unwrap().text().await.unwrap();
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert!(text.len() < 1300, "{text}");
            if !param.is_empty() {
                assert_eq!(answer["error"]["param"], param);
                assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{answer}");
            }
        }
    });
}
