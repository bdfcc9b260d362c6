//! `lm judge` with judges whose preferences are known: answers, interruptions and refusals.

#[expect(dead_code, reason = "the tests of evaluation use the rest")]
#[path = "../../../evaluation/tests/all/fake.rs"]
mod fake;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evaluation::outputs::{Output, Outputs, to_json};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::fake::{Fake, Reply, Shown};
use crate::command::{fails, lines, succeeds, write};
use crate::oracle::{answers, close, speaking};

/// Answers to this many instructions.
fn outputs(name: &str, texts: &[&str]) -> Outputs {
    let answer = |(index, text): (usize, &&str)| {
        let instruction = format!("question {index}");
        (index + 1, Output { instruction, output: (*text).to_owned(), generator: Some(name.to_owned()), dataset: None })
    };
    Outputs {
        path: format!("{name}.json").into(),
        generator: Some(name.to_owned()),
        answers: texts.iter().enumerate().map(answer).collect(),
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn longer(shown: &Shown) -> Reply {
    Reply::Says(match shown.first.len().cmp(&shown.second.len()) {
        std::cmp::Ordering::Greater => "first",
        std::cmp::Ordering::Less => "second",
        std::cmp::Ordering::Equal => "tie",
    })
}

/// Two files of answers, and the arguments that compare them into `out`.
fn files(folder: &TempDir, pairs: usize) -> (String, String, String) {
    let texts: Vec<_> = (0..pairs).map(|index| format!("text {index}")).collect();
    let file = |name: &str| {
        let texts: Vec<_> = texts.iter().map(|text| format!("{name} {text}")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let answers: Vec<_> = outputs(name, &texts).answers.into_iter().map(|(_, answer)| answer).collect();
        write(folder, &format!("{name}.json"), &String::from_utf8(to_json(&answers).unwrap()).unwrap())
    };
    (file("a"), file("b"), folder.path().join("out").display().to_string())
}

/// Waits until the judge has received this many requests.
fn wait_for(fake: &Fake, requests: usize) {
    let begun = Instant::now();
    while fake.requests.lock().unwrap().len() < requests {
        assert!(begun.elapsed() < Duration::from_secs(60), "{requests} requests do not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn begin(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lm"));
    command.args(arguments).env("LM_JUDGE_KEY", "secret").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_comparison_that_is_killed_goes_on_and_asks_nothing_twice_but_what_was_on_its_way() {
    let fake = Fake::new(|shown| {
        Reply::Late(Duration::from_millis(20), if shown.first.starts_with('a') { "first" } else { "tie" })
    });
    let folder = tempfile::tempdir().unwrap();
    let (a, b, out) = files(&folder, 40);
    let arguments =
        ["judge", &a, &b, "--judge", &fake.url, "--model", "m", "--out", &out, "--concurrency", "2", "--seed", "5"];
    let mut kills = 0;
    for requests in [3, 8, 13, 18] {
        let mut child = begin(&arguments);
        wait_for(&fake, requests);
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(!Path::new(&out).join("judgement.json").exists());
    }
    let ended = begin(&arguments).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let asked = fake.asked();
    assert_eq!(asked.len(), 80);
    let again: usize = asked.values().map(|times| times - 1).sum();
    assert!(again <= 2 * kills, "{again} questions were asked again after {kills} kills of 2 questions each");
    let judgement = read(&Path::new(&out).join("judgement.json"));
    assert_eq!(judgement["counts"], json!({"pairs": 40, "judged": 40, "a": 40, "b": 0, "tie": 40, "unparsable": 0}));
    assert_eq!(judgement["win_rate"], json!({"rate": 0.75, "interval": [0.75, 0.75]}));
    assert_eq!((&judgement["asked"]["seed"], &judgement["asked"]["model"]), (&json!(5), &json!("m")));
    // A complete comparison sends no request and prints the same.
    let requests = fake.requests().len();
    let written = std::fs::read(Path::new(&out).join("judgement.json")).unwrap();
    let table = succeeds(&arguments);
    assert!(table.contains("40 of 40 pairs judged: 40 verdicts for A, 0 for B, 40 ties, 0 unparsable"), "{table}");
    assert!(table.contains("A preferred") && table.contains("75.0"), "{table}");
    assert_eq!(fake.requests().len(), requests);
    assert!(std::fs::read(Path::new(&out).join("judgement.json")).unwrap() == written);
    // The key was sent, and is in no file.
    assert!(fake.requests().iter().all(|request| request.headers.contains("authorization: bearer secret\r\n")));
    for entry in std::fs::read_dir(&out).unwrap() {
        assert!(!std::fs::read_to_string(entry.unwrap().path()).unwrap().contains("secret"));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_what_the_same_command_goes_on_with() {
    let fake = Fake::new(|_| Reply::Late(Duration::from_millis(50), "second"));
    let folder = tempfile::tempdir().unwrap();
    let (a, b, out) = files(&folder, 12);
    let arguments = ["judge", &a, &b, "--judge", &fake.url, "--model", "m", "--out", &out, "--concurrency", "1"];
    let child = begin(&arguments);
    wait_for(&fake, 4);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("the same command continues with the verdicts in"));
    let verdicts = std::fs::read_to_string(Path::new(&out).join("verdicts.jsonl")).unwrap().lines().count();
    assert_eq!(verdicts, fake.requests().len(), "what was on its way is waited for");
    assert!(verdicts < 24 && begin(&arguments).wait().unwrap().success());
    assert!(fake.asked().len() == 24 && fake.asked().values().all(|times| *times == 1));
}

#[test]
fn what_is_compared_otherwise_in_the_same_folder_is_refused_by_name() {
    let fake = Fake::new(|_| Reply::Says("tie"));
    let folder = tempfile::tempdir().unwrap();
    let (a, b, out) = files(&folder, 2);
    let with = |a: &str, b: &str, model: &str, more: &[&str], expected: &str| {
        let common = ["judge", a, b, "--judge", &fake.url, "--model", model, "--out", &out];
        fails(&[&common[..], more].concat(), expected);
    };
    succeeds(&["judge", &a, &b, "--judge", &fake.url, "--model", "m", "--out", &out]);
    let requests = fake.requests().len();
    with(&a, &b, "n", &[], "asked.json: model: expected \"m\", as the verdicts there were asked for, got \"n\"");
    with(&b, &a, "m", &[], "asked.json: a: expected");
    with(&a, &a, "m", &[], "asked.json: b: expected");
    with(&a, &b, "m", &["--seed", "1"], "asked.json: seed: expected 0");
    with(&a, &b, "m", &["--temperature", "1"], "asked.json: temperature: expected 0.0");
    let template =
        write(&folder, "t.jinja", "{{ instruction }} <first>\n{{ first }}\n</first> <second>\n{{ second }}\n</second>");
    with(&a, &b, "m", &["--template", &template], "asked.json: template: expected");
    let text = std::fs::read_to_string(&b).unwrap().replace("b text 1", "b text one");
    let changed = write(&folder, "b.json", &text);
    with(&a, &changed, "m", &[], "asked.json: b: expected");
    assert_eq!(fake.requests().len(), requests);
    let other = folder.path().join("other").display().to_string();
    succeeds(&["judge", &a, &changed, "--judge", &fake.url, "--model", "m", "--out", &other, "--template", &template]);
    let told = "question 0 <first>\\na text 0";
    assert!(fake.requests()[requests..].iter().any(|request| request.body.contains(told)), "{told}");
}

#[test]
fn files_that_cannot_be_compared_are_refused_by_file_and_record_before_anything_is_asked() {
    let fake = Fake::new(|_| Reply::Says("tie"));
    let folder = tempfile::tempdir().unwrap();
    let (a, _, out) = files(&folder, 2);
    let answer = |instruction: &str| json!({"instruction": instruction, "output": "x", "generator": "c"});
    let refused = |content: &str, expected: &str| {
        let c = write(&folder, "c.json", content);
        fails(&["judge", &a, &c, "--judge", &fake.url, "--model", "m", "--out", &out], expected);
    };
    let list =
        |instructions: &[&str]| json!(instructions.iter().map(|text| answer(text)).collect::<Vec<_>>()).to_string();
    refused(&list(&["question 0"]), &format!("{a}: record 2: instruction: expected one of "));
    refused(
        &list(&["question 0", "question 1", "question 2"]),
        &format!("c.json: record 3: instruction: expected one of {a}, got \"question 2\""),
    );
    refused(
        &list(&["question 0", "question 1", "question 0"]),
        "c.json: record 3: instruction: expected an instruction that no other record has, as record 1 does",
    );
    refused(
        &json!([{"instruction": "question 0"}]).to_string(),
        "c.json: record 1: output: expected text, got nothing",
    );
    refused("{\"instruction\": ", "c.json: record 1: record: expected a JSON object");
    refused("[1", "c.json: ");
    let missing = ["judge", &a, "missing.json", "--judge", &fake.url, "--model", "m", "--out", &out];
    fails(&missing, "missing.json: No such file");
    fails(
        &["judge", &a, &a, "--judge", "nowhere", "--model", "m", "--out", &out],
        "judge: expected an address such as http",
    );
    assert!(fake.requests().is_empty());
}

#[test]
fn files_are_those_that_alpaca_eval_read_and_are_paired_as_it_pairs_them() {
    let answers = answers("alpaca_eval_outputs.json");
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|side| {
        let recorded = &answers["outputs"][side];
        let path = write(&folder, &format!("{side}.json"), recorded["file"].as_str().unwrap());
        let outputs = Outputs::read(path.as_ref()).unwrap();
        assert_eq!(outputs.generator.as_deref(), recorded["generator"].as_str());
        let read: Vec<_> = outputs.answers.iter().map(|(_, answer)| answer.clone()).collect();
        assert_eq!(serde_json::to_value(&read).unwrap(), recorded["answers"]);
        assert_eq!(String::from_utf8(to_json(&read).unwrap()).unwrap(), recorded["file"].as_str().unwrap());
        outputs
    });
    let found: HashMap<_, _> = evaluation::judge::question::pairs(&a, &b)
        .unwrap()
        .iter()
        .map(|pair| (pair.a.instruction.clone(), (pair.b.output.clone(), pair.a.output.clone())))
        .collect();
    let expected: HashMap<_, _> = answers["outputs"]["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            let text = |field: &str| pair[field].as_str().unwrap().to_owned();
            (text("instruction"), (text("output_1"), text("output_2")))
        })
        .collect();
    assert!(found == expected && found.len() == 4, "{found:?}");
    // Compares alpaca_eval's own evaluation of a judge that prefers the longer output with a comparison by such a
    // judge.
    let fake = Fake::new(|shown| {
        longer(&Shown { first: characters(&shown.first), second: characters(&shown.second), before: 0 })
    });
    let file = |name: &str| folder.path().join(name).display().to_string();
    succeeds(&["judge", &file("a.json"), &file("b.json"), "--judge", &fake.url, "--model", "m", "--out", &file("out")]);
    let (judgement, evaluation) = (read(&folder.path().join("out/judgement.json")), &answers["outputs"]["evaluation"]);
    assert_eq!(judgement["win_rate"]["rate"], evaluation["win_rate"]);
    let [low, high] = [0, 1].map(|end| judgement["win_rate"]["interval"][end].as_f64().unwrap());
    let half = 3.182446305284263 * evaluation["standard_error"].as_f64().unwrap();
    let rate = evaluation["win_rate"].as_f64().unwrap();
    close(
        &[low, high],
        &[(rate - half).max(0.0), (rate + half).min(1.0)],
        1e-12,
        "the interval of three degrees of freedom",
    );
    assert_eq!(judgement["a"]["mean_length"].as_f64().unwrap().floor(), evaluation["avg_length"].as_f64().unwrap());
    assert_eq!(judgement["counts"]["judged"], evaluation["n_total"]);
}

/// A text of as many ASCII characters, for a judge that counts bytes.
fn characters(text: &str) -> String {
    "x".repeat(text.chars().count())
}

#[test]
fn sets_are_answered_as_the_same_prompts_are_and_the_answers_can_be_judged() {
    let folder = tempfile::tempdir().unwrap();
    let model = speaking(folder.path(), "llama").display().to_string();
    let posts = ["SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c\n\nTL;DR:", "SUBREDDIT: r/a\n\nTITLE: d\n\nPOST: e\n\nTL;DR:"];
    let said = ["Say hi", "Name \"three\" things"];
    let alpaca = write(
        &folder,
        "set.json",
        &json!([
            {"dataset": "koala", "instruction": said[0], "output": "hi", "generator": "davinci"},
            {"dataset": "vicuna", "instruction": said[1], "output": "no", "generator": "davinci"},
        ])
        .to_string(),
    );
    let fields = json!({"id": "t", "subreddit": "a", "title": "d", "post": "e", "summary": "f"});
    let tldr = write(&folder, "posts.jsonl", &lines([json!({"prompt": posts[0], "completion": " x"}), fields]));
    let turns = said.map(|text| json!({"messages": [{"role": "user", "content": text}]}));
    let prompts = [
        ("alpaca_eval", alpaca, said, write(&folder, "turns.jsonl", &lines(turns))),
        ("tldr", tldr, posts, write(&folder, "texts.jsonl", &lines(posts.map(|text| json!({"prompt": text}))))),
    ];
    for (format, set, instructions, plain) in prompts {
        let out = folder.path().join(format!("{format}.json")).display().to_string();
        let generate = ["generate", "--model", &model, "--max-tokens", "12", "--data"];
        succeeds(&[&generate[..], &[&set, "--format", format, "--generator", "tiny", "--out", &out]].concat());
        let texts: Vec<_> = succeeds(&[&generate[..], &[&plain]].concat())
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().trim().to_owned())
            .collect();
        assert!(texts.iter().any(|text| !text.is_empty()), "{texts:?}");
        let answers = read(Path::new(&out));
        for (index, answer) in answers.as_array().unwrap().iter().enumerate() {
            assert_eq!(answer["instruction"], instructions[index]);
            assert_eq!(answer["output"], json!(texts[index]));
            assert_eq!(answer["generator"], "tiny");
            let dataset = if format == "tldr" { Value::Null } else { json!(["koala", "vicuna"][index]) };
            assert_eq!(answer["dataset"], dataset);
        }
        assert_eq!(answers.as_array().unwrap().len(), 2);
        let fake = Fake::new(|_| Reply::Says("tie"));
        let judged = folder.path().join(format).display().to_string();
        succeeds(&["judge", &out, &out, "--judge", &fake.url, "--model", "m", "--out", &judged]);
        assert_eq!(read(&Path::new(&judged).join("judgement.json"))["a"]["generator"], "tiny");
    }
    let refused = |arguments: &[&str], expected: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_lm")).arg("generate").args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(expected), "{error}");
    };
    refused(&["--model", &model, "--prompt", "a", "--format", "tldr", "--generator", "x"], "cannot be used with");
    refused(&["--model", &model, "--data", "a.json", "--format", "tldr"], "--generator");
    for number in ["7", " 1e5", "nan", "1_0", ""] {
        let arguments = ["--model", &model, "--data", "a.json", "--format", "tldr", "--generator", number];
        refused(&arguments, "expected a name that is no number");
    }
    refused(&["--model", &model, "--data", "a.json", "--format", "gsm8k", "--generator", "x"], "alpaca_eval, tldr");
}
