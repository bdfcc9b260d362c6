//! The output file of `lm generate`: it is checked first, grows by whole lines, and can be resumed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ndarray_rand::rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::command::{fails, lines, succeeds, write};
use crate::oracle::{checkpoint, ids, speaking};

fn begin(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lm"));
    command.arg("generate").args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Prompts of several lengths, some of them equal.
fn prompts(count: u32) -> String {
    let prompt =
        |index: u32| -> Vec<u32> { (0..1 + index * 7 % 11).map(|place| (7 * place + 3 * index) % 96).collect() };
    lines((0..count).map(|index| json!({"prompt_ids": prompt(index % 40)})))
}

#[test]
fn kill_9_at_100_random_moments_repeats_nothing_and_ends_in_the_same_bytes() {
    let memory = Path::new("/dev/shm");
    let folder = if memory.exists() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let model = checkpoint("llama").display().to_string();
    let data = write(&folder, "prompts.jsonl", &prompts(120));
    let settings = ["--model", &model, "--data", &data, "--max-tokens", "24", "--temperature", "1", "--seed", "5"];
    let printed = succeeds(&[&["generate"], &settings[..]].concat());
    let whole = folder.path().join("whole.jsonl");
    let begun = Instant::now();
    succeeds(&[&["generate"], &settings[..], &["--out", whole.to_str().unwrap()]].concat());
    // Kills fall into the start and into generation, on machines of any speed.
    let longest = (begun.elapsed() * 9 / 10).max(Duration::from_millis(50)).as_micros() as u64;
    let whole = std::fs::read(&whole).unwrap();
    assert!(whole == printed.as_bytes(), "what is written is what is printed");
    let mut rng = ChaCha8Rng::seed_from_u64(100);
    let (mut kills, mut resumed, mut cut, mut round, mut before) = (0, 0, 0, 0, 0);
    loop {
        let out = folder.path().join(format!("killed-{round}.jsonl"));
        let mut child = begin(&[&settings[..], &["--resume", "--out", out.to_str().unwrap()]].concat());
        // The last command runs to completion.
        if kills < 100 {
            std::thread::sleep(Duration::from_micros(rng.random_range(0..longest)));
        } else {
            child.wait().unwrap();
        }
        let finished = child.try_wait().unwrap();
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        let found = std::fs::read(&out).unwrap_or_default();
        if let Some(status) = finished {
            assert!(status.success(), "{told}");
            assert!(found == whole, "round {round} differs");
            (round, before) = (round + 1, 0);
            if kills >= 100 {
                break;
            }
            continue;
        }
        kills += 1;
        assert!(!told.contains("error"), "{told}");
        // The file is a prefix of the complete one, and no line of it is lost.
        assert!(whole.starts_with(&found), "a killed run wrote something else");
        let lines = found.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines >= before, "{lines} {before}");
        resumed += usize::from(lines > 0);
        cut += usize::from(found.last().is_some_and(|byte| *byte != b'\n'));
        before = lines;
    }
    eprintln!("{kills} kills, {resumed} behind answers, {cut} within a line, {round} rounds, {:.1?}", begun.elapsed());
    assert!(resumed > 20, "{resumed} of {kills} runs left answers");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let there = write(&folder, "there.jsonl", "mine\n");
    let place = folder.path().display().to_string();
    let nothing = ["generate", "--model", "/no/such/model", "--data", "/no/such/data.jsonl", "--out"];
    fails(&[&nothing[..], &[&there]].concat(), "there.jsonl: the file exists already: with its .asked.json, --resume");
    fails(&[&nothing[..], &[&place]].concat(), "it is a folder; expected a file");
    fails(&[&nothing[..], &[&format!("{there}/a.jsonl")]].concat(), "--out: ");
    fails(&[&nothing[..], &["/dev/null", "--resume"]].concat(), "/dev/null: --resume needs a regular file");
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine\n");
    let new = folder.path().join("new");
    fails(&[&nothing[..], &[new.join("deep/a.jsonl").to_str().unwrap()]].concat(), "/no/such/data.jsonl");
    assert!(!new.exists(), "a command that is refused leaves no empty folder");
    fails(&["generate", "--model", "m", "--prompt", "a", "--resume"], "--out");
}

#[test]
fn answers_that_were_made_otherwise_are_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("llama").display().to_string();
    let data = write(&folder, "prompts.jsonl", &prompts(5));
    let out = folder.path().join("out.jsonl").display().to_string();
    let generate = ["generate", "--max-tokens", "4", "--out", &out, "--resume", "--model"];
    succeeds(&[&generate[..], &[&model, "--data", &data]].concat());
    let answers = std::fs::read_to_string(&out).unwrap();
    // The same command again finds all answers complete.
    succeeds(&[&generate[..], &[&model, "--data", &data]].concat());
    let other = |more: &[&str], expected: &str| fails(&[&generate[..], more].concat(), expected);
    other(
        &[&model, "--data", &data, "--temperature", "0.5"],
        "out.jsonl.asked.json: temperature: expected 0.0, as for the answers",
    );
    let more = write(&folder, "more.jsonl", &prompts(6));
    other(&[&model, "--data", &more], "out.jsonl.asked.json: prompts: expected");
    let qwen = checkpoint("qwen2").display().to_string();
    other(&[&qwen, "--data", &data], "out.jsonl.asked.json: model: expected");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), answers);
    std::fs::remove_file(format!("{out}.asked.json")).unwrap();
    other(&[&model, "--data", &data], "the settings of these answers are unknown, as their .asked.json is missing");
}

#[test]
fn a_document_appears_whole_and_is_made_of_lines_that_were_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let model = speaking(folder.path(), "llama").display().to_string();
    let set: Vec<Value> = (0..9).map(|index| json!({"instruction": format!("Say {index}")})).collect();
    let data = write(&folder, "set.json", &json!(set).to_string());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let generate = |out: &str| {
        let format =
            ["--format", "alpaca_eval", "--generator", "tiny", "--max-tokens", "6", "--resume", "--batch", "2"];
        succeeds(&[&["generate", "--model", &model, "--data", &data, "--out", out], &format[..]].concat());
    };
    let (whole, out) = (path("whole.json"), path("out.json"));
    generate(&whole);
    generate(&out);
    assert!(!Path::new(&format!("{out}.jsonl")).exists());
    // The file of a command that was killed after its third answer, in the middle of the fourth.
    let answers: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&whole).unwrap()).unwrap();
    std::fs::remove_file(&out).unwrap();
    std::fs::write(format!("{out}.jsonl"), lines(answers[..3].to_vec()) + "{\"instr").unwrap();
    generate(&out);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&whole).unwrap());
    generate(&out);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&whole).unwrap());
}

#[cfg(unix)]
#[test]
fn a_device_is_written_through_and_stays_one() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("llama").display().to_string();
    let data = write(&folder, "prompts.jsonl", &prompts(2));
    let link = folder.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let out = link.display().to_string();
    succeeds(&["generate", "--model", &model, "--data", &data, "--max-tokens", "2", "--out", &out]);
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn prompts_are_read_from_data_of_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("llama").display().to_string();
    let generate = |name: &str, line: Value| -> Vec<u32> {
        let data = write(&folder, name, &lines([line]));
        let printed = succeeds(&["generate", "--model", &model, "--data", &data, "--max-tokens", "6"]);
        ids(&serde_json::from_str::<Value>(&printed).unwrap()["response_ids"])
    };
    let expected = generate("a.jsonl", json!({"prompt_ids": [5, 6, 7]}));
    for line in [
        json!({"prompt_ids": [5, 6, 7], "response_ids": [8]}),
        json!({"prompt_ids": [5, 6, 7], "response_ids": [8], "label": false}),
        json!({"prompt_ids": [5, 6, 7], "chosen_ids": [8], "rejected_ids": [9]}),
        json!({"prompt_ids": [5, 6, 7], "completions_ids": [[8], [9]], "rewards": [1, 0]}),
    ] {
        assert_eq!(generate("b.jsonl", line.clone()), expected, "{line}");
    }
}
