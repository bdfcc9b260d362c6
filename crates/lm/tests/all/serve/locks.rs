//! Clients that try to block others, or to keep the server from stopping.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lm::serve::Limits;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::running::{Running, limits};
use super::{endless, long, run, until};
use crate::oracle::checkpoint;

/// Connections that send many requests and read no answer, with as many bytes as the system accepts of each.
fn deaf(running: &Running, count: usize) -> Vec<TcpStream> {
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(4000);
    let connect = |_| {
        let mut stream = TcpStream::connect(running.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        // A write that fails at the end is not an error of the test.
        _ = stream.write_all(requests.as_bytes());
        stream
    };
    (0..count).map(connect).collect()
}

#[test]
fn clients_that_ask_without_end_and_read_nothing_keep_no_one_from_being_answered() {
    for key in [None, Some("sesame")] {
        let limits =
            Limits { connections: 64, connections_per_address: 64, request: Duration::from_secs(30), ..limits() };
        let running = Running::of(&checkpoint("llama"), limits, key);
        let deaf = deaf(&running, 200);
        let begun = Instant::now();
        run(async {
            // Each request comes over a separate connection.
            let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
            for _ in 0..10 {
                let request =
                    client.post(running.url("/v1/completions")).json(&json!({"prompt": [1], "max_tokens": 1}));
                let response = request.bearer_auth("sesame").send().await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
            }
        });
        // While they hold all connections, no other client gets an answer.
        assert!(begun.elapsed() < limits.request, "{:?}", begun.elapsed());
        drop(deaf);
    }
}

/// Waits until the other side has closed a connection, without reading.
fn closes(stream: &TcpStream, within: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < within {
        // Writing to a closed connection fails.
        match (&*stream).write(b"G") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return true,
            Ok(_) => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn a_connection_whose_answers_nobody_reads_is_closed_as_is_one_that_is_idle() {
    let limits = Limits { request: Duration::from_millis(400), ..limits() };
    let running = Running::of(&checkpoint("llama"), limits, None);
    for stream in deaf(&running, 3) {
        assert!(closes(&stream, Duration::from_secs(10)));
    }
    let begun = Instant::now();
    // The server sends an answer, and then closes the connection.
    assert!(running.raw("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").starts_with("HTTP/1.1 200"));
    assert!(running.raw("").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_client_has_a_budget_of_connections_and_is_told_so() {
    let (_folder, running) = endless(Limits { connections_per_address: 2, ..limits() });
    run(async {
        let ask = |client: &Client| client.post(running.url("/v1/completions")).json(&long(true)).send();
        let clients = [Client::new(), Client::new()];
        let (one, other) = (ask(&clients[0]).await.unwrap(), ask(&clients[1]).await.unwrap());
        let response = reqwest::get(running.url("/health")).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["type"], "rate_limit_error");
        drop((one, other));
        until("places are free", async || {
            reqwest::get(running.url("/health")).await.unwrap().status() == StatusCode::OK
        })
        .await;
    });
}

#[test]
fn a_server_that_stops_ends_whatever_has_not_ended_by_its_grace() {
    let (_folder, running) = endless(Limits { grace: Duration::from_millis(500), ..limits() });
    let deaf = deaf(&running, 20);
    let body = long(true).to_string();
    let mut answer = TcpStream::connect(running.address).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    write!(answer, "{head}{}\r\n\r\n{body}", body.len()).unwrap();
    let mut first = [0; 12];
    answer.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let begun = Instant::now();
    drop(running);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(deaf);
}

#[test]
fn connections_that_are_answered_nothing_hold_no_server_that_stops() {
    // The grace period of an hour is only for answers.
    let running = Running::of(&checkpoint("llama"), Limits { grace: Duration::from_secs(3600), ..limits() }, None);
    let deaf = deaf(&running, 20);
    let begun = Instant::now();
    drop(running);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(deaf);
}

#[test]
fn a_signal_ends_a_server_whose_connections_nobody_reads() {
    let model = checkpoint("llama").display().to_string();
    let mut server = Command::new(env!("CARGO_BIN_EXE_lm"))
        .args(["serve", "--model", &model, "--port", "0", "--grace-seconds", "600"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let running = Spawned::new(&mut server);
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(4000);
    let streams: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(&running.address).unwrap();
            stream.set_nonblocking(true).unwrap();
            _ = stream.write_all(requests.as_bytes());
            stream
        })
        .collect();
    let begun = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(streams);
}

/// A server in a separate process.
pub(super) struct Spawned {
    pub(super) address: String,
}

impl Spawned {
    /// Waits until the server answers.
    pub(super) fn new(server: &mut std::process::Child) -> Self {
        use std::io::{BufRead, BufReader};
        let mut line = String::new();
        BufReader::new(server.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("serving at http://").unwrap().strip_suffix("/v1").unwrap().to_owned();
        Self { address }
    }
}
