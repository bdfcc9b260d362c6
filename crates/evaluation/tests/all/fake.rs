//! A fake judge: a server of chat completions whose answers a test determines.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A question to the fake judge.
pub(crate) struct Shown {
    pub(crate) first: String,
    pub(crate) second: String,
    /// Number of earlier requests with the same body.
    pub(crate) before: usize,
}

/// Answer of the fake judge.
pub(crate) enum Reply {
    Says(&'static str),
    /// A status, an optional `Retry-After`, and a body.
    Fails(u16, Option<&'static str>, &'static str),
    /// An answer after a delay.
    Late(Duration, &'static str),
}

/// A received request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Server of chat completions on its own port, which runs until the test process ends.
pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&Shown) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (Arc::new(answer), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&kept));
                // A client that was killed does not read its answer, which is not an error of the judge.
                std::thread::spawn(move || _ = serve(stream.unwrap(), &*answer, &requests));
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Number of requests for each question.
    pub(crate) fn asked(&self) -> HashMap<String, usize> {
        let mut asked = HashMap::new();
        self.requests().into_iter().for_each(|request| *asked.entry(request.body).or_insert(0) += 1);
        asked
    }
}

fn serve(
    stream: TcpStream,
    answer: &(impl Fn(&Shown) -> Reply + ?Sized),
    requests: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") {
        if reader.read_line(&mut headers)? == 0 {
            return Ok(());
        }
    }
    assert!(headers.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{headers}");
    let headers = headers.to_lowercase();
    let length = headers.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let before = {
        let mut requests = requests.lock().unwrap();
        let before = requests.iter().filter(|request| request.body == body).count();
        requests.push(Request { headers, body: body.clone() });
        before
    };
    let question: Value = serde_json::from_str(&body).unwrap();
    let content = question["messages"][0]["content"].as_str().unwrap();
    let between = |tag: &str| {
        let (_, rest) = content.split_once(&format!("<{tag}>\n")).unwrap();
        rest.split_once(&format!("\n</{tag}>")).unwrap().0.to_owned()
    };
    let says = |text: &str| {
        json!({"model": "fake-1", "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
            .to_string()
    };
    let (status, after, body) = match answer(&Shown { first: between("first"), second: between("second"), before }) {
        Reply::Says(text) => (200, None, says(text)),
        Reply::Fails(status, after, body) => (status, after, body.to_owned()),
        Reply::Late(pause, text) => {
            std::thread::sleep(pause);
            (200, None, says(text))
        }
    };
    let after = after.map_or(String::new(), |after| format!("retry-after: {after}\r\n"));
    let head =
        format!("HTTP/1.1 {status} Whatever\r\nconnection: close\r\n{after}content-length: {}\r\n\r\n", body.len());
    (&stream).write_all((head + &body).as_bytes())
}
