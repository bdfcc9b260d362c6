//! Requests of the maximum size: none takes much memory or delays others.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

use super::locks::Spawned;
use super::{run, spelling};

/// Maximum memory that a request may add to the process.
const MOST: u64 = 256 << 20;
/// Maximum size of a request under the default limits, bytes.
const BODY: usize = 16 << 20;

/// Kills a server when a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Ended {
    /// A number about the process in bytes, from Linux.
    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Limits the process to its present memory and that of one request, and resets the recorded maximum.
    fn limit(&self) -> u64 {
        let most = self.memory("VmData") + MOST;
        let pid = self.0.id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--data={most}:")]).status();
        assert!(limited.unwrap().success());
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        self.memory("VmRSS")
    }
}

/// A list that repeats a value, as often as the body allows, up to a count.
fn filled(begin: &str, value: &str, count: usize, end: &str) -> String {
    let count = count.min((BODY - begin.len() - end.len()) / (value.len() + 1));
    format!("{begin}{}{end}", vec![value; count].join(","))
}

#[test]
fn no_request_of_the_default_limits_raises_the_memory_by_more_than_256_mib() {
    let folder = spelling();
    let config = folder.path().join("config.json");
    let mut shape: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    shape["max_position_embeddings"] = json!(1 << 17);
    std::fs::write(config, shape.to_string()).unwrap();
    let mut server = Ended(
        Command::new(env!("CARGO_BIN_EXE_lm"))
            .args(["serve", "--model", &folder.path().display().to_string(), "--port", "0", "--name", "tiny"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let running = Spawned::new(&mut server.0);
    let ids = format!("[{}]", vec!["40"; 170].join(","));
    let long_ids = format!("[{}]", vec!["40"; 16_000].join(","));
    let letters = |count: usize| "ab c".repeat(count / 4);
    let turns = |content: &str| format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]}}");
    // Requests with the status of their answer, 0 if the client disconnects, and the rejected field.
    let completions = [
        ("stops beyond number", filled("{\"prompt\":\"a\",\"stop\":[", "\"a\"", 1_500_000, "]}"), 400, "body"),
        ("many stops", filled("{\"prompt\":\"a\",\"stop\":[", "\"a\"", 1_000_000, "]}"), 400, "stop"),
        ("a long stop", format!("{{\"prompt\":\"a\",\"stop\":\"{}\"}}", letters(BODY - 100)), 400, "stop"),
        ("a long text", format!("{{\"prompt\":\"{}\"}}", letters(BODY - 100)), 400, "prompt"),
        ("escapes", format!("{{\"prompt\":\"{}\"}}", "\\u0001".repeat(BODY / 6 - 10)), 400, "prompt"),
        ("the longest text of which tokens are made", json!({"prompt": letters(524_000)}).to_string(), 400, "prompt"),
        ("many texts", filled("{\"prompt\":[", "\"ab\"", 400_000, "]}"), 400, "prompt"),
        ("small objects", filled("{\"prompt\":[", "{\"\":0}", 3_000_000, "]}"), 400, "body"),
        ("as many objects as may be", filled("{\"prompt\":[", "{\"\":0}", 65_535, "]}"), 400, "prompt[0]"),
        ("lists within lists", format!("{{\"prompt\":{}", "[".repeat(BODY - 100)), 400, "body"),
        ("empty lists", filled("{\"prompt\":[", "[]", 1_048_000, "]}"), 400, "prompt"),
        ("token ids", filled("{\"prompt\":[", "1", 1_048_000, "]}"), 400, "prompt"),
        ("a long name of a model", format!("{{\"prompt\":[1],\"model\":\"{}\"}}", letters(BODY - 100)), 404, "model"),
        ("a long name of a field", format!("{{\"prompt\":[1],\"{}\":1}}", letters(BODY - 100)), 400, ""),
        (
            "more log-probabilities than may be",
            filled("{\"echo\":true,\"logprobs\":5,\"max_tokens\":0,\"prompt\":[", &long_ids, 20, "]}"),
            400,
            "logprobs",
        ),
        (
            "as many log-probabilities as may be",
            filled("{\"echo\":true,\"logprobs\":5,\"max_tokens\":0,\"prompt\":[", &ids, 1024, "]}"),
            200,
            "",
        ),
        ("as long a prompt as may be", format!("{{\"max_tokens\":1,\"logprobs\":5,\"prompt\":{long_ids}}}"), 0, ""),
        ("as many long prompts as may be", filled("{\"max_tokens\":384,\"prompt\":[", &long_ids, 60, "]}"), 0, ""),
    ];
    let chats = [
        ("a long turn", turns(&letters(BODY - 100)), 400, "messages"),
        ("the longest turn of which tokens are made", turns(&letters(523_000)), 400, "prompt"),
        (
            "many turns",
            filled("{\"messages\":[", "{\"role\":\"user\",\"content\":\"\"}", 65_000, "]}"),
            400,
            "messages",
        ),
        (
            "as many turns as may be",
            filled("{\"messages\":[", "{\"role\":\"user\",\"content\":\"a\"}", 16_000, "]}"),
            400,
            "prompt",
        ),
        (
            "many parts",
            filled(
                "{\"messages\":[{\"role\":\"user\",\"content\":[",
                "{\"type\":\"text\",\"text\":\"a\"}",
                65_000,
                "]}]}",
            ),
            400,
            "prompt",
        ),
        ("metadata", filled("{\"messages\":[],\"metadata\":[", "0", 1_048_000, "]}"), 400, "metadata"),
    ];
    run(async {
        let client = Client::new();
        let post = async |route: &str, body: String, limit: Duration| {
            let url = format!("http://{}/v1/{route}", running.address);
            let request = client.post(url).header("Content-Type", "application/json").body(body).timeout(limit);
            let response = request.send().await?;
            let status = response.status().as_u16();
            let text = response.text().await?;
            reqwest::Result::Ok((status, serde_json::from_str::<Value>(&text).unwrap_or_default()))
        };
        let minutes = Duration::from_secs(300);
        // These threads and buffers stay allocated.
        for _ in 0..3 {
            let warm = json!({"prompt": ["ab", "a"], "echo": true, "logprobs": 5}).to_string();
            assert_eq!(post("completions", warm, minutes).await.unwrap().0, 200);
            assert_eq!(post("chat/completions", turns("ab"), minutes).await.unwrap().0, 200);
        }
        let health = async || {
            let begun = Instant::now();
            let response = client.get(format!("http://{}/health", running.address)).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200);
            begun.elapsed()
        };
        let cases = completions.into_iter().map(|case| ("completions", case));
        for (route, (name, body, status, param)) in
            cases.chain(chats.into_iter().map(|case| ("chat/completions", case)))
        {
            assert!(body.len() <= BODY, "{name}: {}", body.len());
            let before = server.limit();
            let limit = if status == 0 { Duration::from_secs(3) } else { minutes };
            let mut slowest = Duration::ZERO;
            let asked = post(route, body, limit);
            tokio::pin!(asked);
            let answered = loop {
                tokio::select! {
                    answered = &mut asked => break answered,
                    () = tokio::time::sleep(Duration::from_millis(100)) => slowest = slowest.max(health().await),
                }
            };
            slowest = slowest.max(health().await);
            let raised = server.memory("VmHWM").saturating_sub(before);
            println!("{name}: {} MiB, others answered within {slowest:?}", raised >> 20);
            if status > 0 {
                let (found, answer) = answered.unwrap();
                let error = &answer["error"];
                assert_eq!(found, status, "{name}: {error}");
                match param {
                    "" => {}
                    "body" => assert!(error["message"].as_str().unwrap().starts_with("body: "), "{name}: {error}"),
                    param => assert_eq!(error["param"], param, "{name}: {error}"),
                }
            }
            assert!(raised <= MOST, "{name}: {} MiB", raised >> 20);
            assert!(slowest < Duration::from_secs(5), "{name}: {slowest:?}");
        }
    });
}
