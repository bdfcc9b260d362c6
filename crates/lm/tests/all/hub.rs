//! A model by its id is downloaded once, from a hub that a thread of the test imitates.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::oracle::checkpoint;

const COMMIT: &str = "0123456789012345678901234567890123456789";

/// Files of a model, by their names.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Requested paths.
type Seen = Arc<Mutex<Vec<String>>>;

/// Serves one model, `owner/tiny`, as the hub does, and returns the server's address.
fn hub(files: BTreeMap<String, Vec<u8>>) -> String {
    watched(files).0
}

/// Serves the model, and also returns the requested paths.
fn watched(files: BTreeMap<String, Vec<u8>>) -> (String, Seen) {
    let seen = Seen::default();
    let told = Arc::clone(&seen);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that disconnects is not an error of the hub.
            _ = stream.map(|stream| answer(stream, &files, &told));
        }
    });
    (format!("http://{address}"), seen)
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, seen: &Seen) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The headers end with an empty line.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    seen.lock().unwrap().push(path.to_owned());
    let file = path.strip_prefix(&format!("/owner/tiny/resolve/{COMMIT}/")).and_then(|name| files.get(name));
    let tree = json!(
        files
            .iter()
            .map(|(path, bytes)| json!({"type": "file", "path": path, "size": bytes.len(), "oid": path}))
            .collect::<Vec<_>>()
    );
    let (status, body) = match (path, file) {
        (_, Some(bytes)) => ("200 OK", bytes.clone()),
        (path, None) if path == format!("/api/models/owner/tiny/tree/{COMMIT}") => {
            ("200 OK", tree.to_string().into_bytes())
        }
        ("/api/models/owner/tiny/revision/main", None) => {
            ("200 OK", json!({"id": "owner/tiny", "sha": COMMIT}).to_string().into_bytes())
        }
        _ => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"{length}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n"
    )?;
    if !request.starts_with("HEAD") {
        stream.write_all(&body)?;
    }
    Ok(())
}

#[test]
fn a_model_is_found_on_the_hub_and_then_without_it() {
    let cache = tempfile::tempdir().unwrap();
    let folder = checkpoint("llama");
    let endpoint = hub(files(&folder));
    let inspect = |model: &str, endpoint: &str, offline: &str| -> Output {
        Command::new(env!("CARGO_BIN_EXE_lm"))
            .args(["inspect", "--model", model])
            .env("HF_HOME", cache.path())
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HUB_OFFLINE", offline)
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap()
    };
    let expected = inspect(folder.to_str().unwrap(), &endpoint, "1").stdout;
    assert!(!expected.is_empty());
    for (model, endpoint, offline) in [
        ("owner/tiny", endpoint.as_str(), "0"),
        ("owner/tiny", "http://127.0.0.1:9", "1"),
        ("owner/tiny@main", &endpoint, "0"),
    ] {
        let found = inspect(model, endpoint, offline);
        assert_eq!(found.stdout, expected, "{model}: {}", String::from_utf8_lossy(&found.stderr));
    }
    let missing = inspect("owner/other", &endpoint, "0");
    let error = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        error.starts_with("error: model \"owner/other\": there is no such folder, and the hub's error is: "),
        "{error}"
    );
}

#[test]
fn only_what_is_loaded_is_fetched() {
    let loaded = |name: &str, others: &[&str]| {
        let cache = tempfile::tempdir().unwrap();
        let mut all = files(&checkpoint(name));
        let expected: Vec<String> = all.keys().cloned().chain(["tokenizer_config.json".to_owned()]).collect();
        for name in others.iter().chain(&["tokenizer_config.json"]) {
            all.insert((*name).to_owned(), b"{}".to_vec());
        }
        let (endpoint, seen) = watched(all);
        let found = Command::new(env!("CARGO_BIN_EXE_lm"))
            .args(["inspect", "--model", "owner/tiny"])
            .env("HF_HOME", cache.path())
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HUB_OFFLINE", "0")
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let mut seen: Vec<String> = seen
            .lock()
            .unwrap()
            .iter()
            .filter_map(|path| Some(path.strip_prefix(&format!("/owner/tiny/resolve/{COMMIT}/"))?.to_owned()))
            .collect();
        seen.sort();
        seen.dedup();
        let mut expected = expected;
        expected.sort();
        assert_eq!(seen, expected, "{name}");
    };
    let others = [
        "consolidated.safetensors",
        "consolidated-00001-of-00002.safetensors",
        "model.fp16.safetensors",
        "model.fp16-00001-of-00002.safetensors",
        "original/model.safetensors",
        "onnx/config.json",
        "pytorch_model.bin",
        "trainer_state.json",
        "model-00001-of-00099.safetensors",
    ];
    loaded("llama", &others);
    loaded("llama-sharded", &others);
    // Beside a whole file, shards are not read.
    loaded("gemma", &["model-00001-of-00002.safetensors"]);
}
