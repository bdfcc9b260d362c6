//! A server for tests, and requests to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::civil::date;
use lm::checkpoint::config::Dtype;
use lm::checkpoint::folder::{Replaced, Text};
use lm::serve::{self, Limits, serve};
use lm::transformer::model::Transformer;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tch::Device;

use crate::oracle::checkpoint;

/// A server in a thread of this process, which stops when it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn limits() -> Limits {
    Limits {
        batch: 16,
        queue: 512,
        cache_tokens: 2048,
        max_tokens: 4096,
        body_bytes: 1 << 16,
        answer: Duration::from_secs(30),
        request: Duration::from_secs(10),
        grace: Duration::from_secs(30),
        connections: 512,
        connections_per_address: 512,
    }
}

impl Running {
    pub(crate) fn of(folder: &Path, limits: Limits, api_key: Option<&str>) -> Self {
        let model = Transformer::read(folder, Dtype::Float32, Device::Cpu).unwrap();
        let text = Text::read(folder, &Replaced::default(), date(2024, 7, 26).at(12, 0, 0, 0)).unwrap();
        let settings = serve::ServerSettings {
            address: ([127, 0, 0, 1], 0).into(),
            api_key: api_key.map(str::to_owned),
            name: "tiny".to_owned(),
            host_names: Vec::new(),
            limits,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            serve(model, text, settings, |address| ready.send(address).unwrap(), &|| asked.load(Ordering::Relaxed))
                .unwrap();
        });
        Self { address: address.recv().unwrap(), stop, thread: Some(thread) }
    }

    pub(crate) fn tiny(name: &str) -> Self {
        Self::of(&checkpoint(name), limits(), None)
    }

    pub(crate) fn url(&self, route: &str) -> String {
        format!("http://{}{route}", self.address)
    }

    /// Sends a request, and returns the status and the JSON of the response.
    pub(crate) async fn post(&self, route: &str, body: &Value) -> (StatusCode, Value) {
        let response = Client::new().post(self.url(route)).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    pub(crate) async fn completion(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/v1/completions", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    pub(crate) async fn text(&self, route: &str) -> String {
        reqwest::get(self.url(route)).await.unwrap().text().await.unwrap()
    }

    /// Value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.text("/metrics").await;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {text}")).split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Sends raw bytes, and returns everything received until the connection is closed.
    pub(crate) fn raw(&self, text: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(text.as_ref()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}
