//! Unusable records are an error with their line, or are skipped and counted.

use serde_json::{Value, json};

use crate::command::{fails, lines, lm, metrics, two_stages, write};

/// A record of each unusable kind, with its error.
fn unusable() -> Vec<(String, &'static str, &'static str)> {
    let pair = |prompt: Value, chosen: Value, rejected: Value| {
        json!({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}).to_string()
    };
    vec![
        ("{\"prompt_ids\": [5]".to_owned(), "not a JSON object", "line: expected a JSON object, got EOF"),
        (
            "{\"prompt_ids\": [5], \"chosen_ids\": [6], \"rejected_ids\": [7], \"chosen_ids\": [8]}".to_owned(),
            "not a JSON object",
            "line: expected a JSON object, got duplicate key \"chosen_ids\"",
        ),
        (
            json!({"prompt_ids": [5], "chosen_ids": [6]}).to_string(),
            "with wrong fields",
            "rejected_ids: expected a list of token ids, got nothing",
        ),
        (
            pair(json!([5]), json!([6]), json!([])),
            "with an empty prompt or response",
            "rejected_ids: expected at least 1 token id, got none",
        ),
        (
            pair(json!([5]), json!([6, 7]), json!([6, 7])),
            "with equal responses",
            "rejected: expected a response other than chosen, as a method cannot learn from two equal ones, got the same",
        ),
        (pair(json!(vec![7; 50]), json!([8]), json!([9])), "too long", "50 prompt tokens"),
        (
            json!({"prompt_ids": [5], "response_ids": [6]}).to_string(),
            "of a kind that the method does not learn from",
            "record: expected one of preferences, as the method learns from them, got a demonstration",
        ),
        (
            pair(json!([5]), json!([6]), json!([700])),
            "that the model cannot encode",
            "response: expected token ids below 96",
        ),
    ]
}

#[test]
fn unusable_records_of_every_kind_are_an_error_with_their_line_or_skipped_and_counted_by_kind() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "steps = 2\nmax_length = 40");
    let pairs = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    let first = pairs.lines().next().unwrap();
    let train = |name: &str, data: &str, invalid: &str| {
        let out = folder.path().join(name);
        let (data, invalid) = (format!("stage.1.data.0.path={data}"), format!("invalid={invalid}"));
        let arguments = ["train", &recipe, "--out", out.to_str().unwrap(), "--set", &data, "--set", &invalid];
        let output = lm(&arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), out)
    };
    for (record, _, problem) in unusable() {
        let data = write(&folder, "bad.jsonl", &format!("{first}\n{record}\n"));
        let (code, told, out) = train("bad", &data, "error");
        assert_eq!(code, Some(2), "{told}");
        assert!(told.starts_with(&format!("error: {data}:2: {problem}")), "{told}\n  lacks {problem}");
        assert!(!out.exists(), "a run that is refused leaves no folder");
    }
    // Usable records with the unusable ones among them, twice each.
    let bad: String = unusable().iter().map(|(record, ..)| format!("{record}\n")).collect();
    let (head, tail) = pairs.split_at(first.len() + 1);
    let data = write(&folder, "mixed.jsonl", &format!("{head}{bad}{tail}{bad}"));
    let (code, told, out) = train("mixed", &data, "skip");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("{data}: 16 of 28 records are skipped\n")), "{told}");
    for (index, (_, kind, problem)) in unusable().into_iter().enumerate() {
        if index != 1 {
            let count = if index == 0 { 4 } else { 2 };
            let expected = format!("{count} {kind}; the first: {data}:{}: {problem}", index + 2);
            assert!(told.contains(&expected), "{told}\n  lacks {expected}");
        }
    }
    let (code, told, whole) = train("whole", &folder.path().join("pairs.jsonl").display().to_string(), "skip");
    assert_eq!((code, told.contains("skipped")), (Some(0), false), "{told}");
    assert_eq!(metrics(&out), metrics(&whole), "what is skipped is as if it had not been there");
    // If no record is left, the error gives the reasons.
    let none = write(&folder, "none.jsonl", &bad);
    let (code, told, _) = train("none", &none, "skip");
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains(
            "none.jsonl: records: expected at least 1 that the method can learn from, got 0, as 8 were skipped"
        )
    );
}

#[test]
fn a_limit_counts_records_that_are_learnt_from_and_nothing_behind_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "steps = 2\ninvalid = \"skip\"");
    let pairs = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    let data = write(&folder, "mixed.jsonl", &format!("{{}}\n{pairs}not JSON\n"));
    let out = folder.path().join("out");
    let data = [format!("stage.1.data.0.path={data}"), "stage.1.data.0.limit=12".to_owned()];
    let told = lm(&["train", &recipe, "--out", out.to_str().unwrap(), "--set", &data[0], "--set", &data[1]]);
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("mixed.jsonl: 1 of 13 records are skipped"), "{told}");
}

#[test]
fn the_former_name_of_the_field_says_what_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "overlong = \"skip\"");
    let out = folder.path().join("out").display().to_string();
    fails(&["train", &recipe, "--out", &out], "recipe.toml: overlong: expected invalid = \"error\" or \"skip\"");
}

#[test]
fn data_in_every_format_train_alike() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "steps = 2");
    let pairs = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    let values: Vec<Value> = pairs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let compressed = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let list = serde_json::to_string_pretty(&values).unwrap();
    let mut losses = Vec::new();
    for (name, bytes) in [
        ("plain.jsonl", lines(values.clone()).into_bytes()),
        ("marked.jsonl", format!("\u{feff}{pairs}\n \n\r\n").into_bytes()),
        ("lines.json", pairs.replace('\n', "\r\n").into_bytes()),
        ("list.json", format!("\u{feff}\n {list}\n").into_bytes()),
        ("lines.jsonl.gz", compressed(&pairs)),
        ("list.json.gz", compressed(&list)),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let out = folder.path().join(format!("out-{name}"));
        let data = format!("stage.1.data.0.path={}", path.display());
        let output = lm(&["train", &recipe, "--out", out.to_str().unwrap(), "--set", &data]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        losses.push(metrics(&out));
    }
    assert!(losses.iter().all(|one| *one == losses[0]));
}
