//! Comparisons of two models' answers, by judges that are known: what they prefer, when they fail, and how they are interrupted.

mod fake;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lm::judge::ask::{Judge, Settings};
use lm::judge::judgement::Judgement;
use lm::judge::question::{Pair, Template};
use lm::judge::rates::{Controlled, Counts, Rate, Rates};
use lm::judge::verdict::{Choice, Order, Verdict};
use lm::judge::{Case, judge};
use lm::outputs::{Output, Outputs, to_json};
use program::OutputFolder;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::fake::{Fake, Reply, Shown};
use crate::command::{fails, lines, succeeds, write};
use crate::oracle::{answers, close, numbers, speaking};

/// Answers to as many instructions.
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

fn settings(fake: &Fake) -> Settings {
    Settings {
        url: fake.url.clone(),
        model: "fake".to_owned(),
        temperature: 0.0,
        seed: 0,
        max_tokens: None,
        timeout: Duration::from_secs(20),
        tries: 3,
        pause: Duration::from_millis(1),
    }
}

/// Compares in a new folder.
fn compare(settings: Settings, a: &[&str], b: &[&str]) -> Result<Judgement, String> {
    let folder = tempfile::tempdir().unwrap();
    let out = OutputFolder::create(folder.path()).unwrap();
    let (judge_, template) = (Judge::new(settings, None).unwrap(), Template::read(None).unwrap());
    let case = Case {
        a: &outputs("a", a),
        b: &outputs("b", b),
        judge: &judge_,
        template: &template,
        concurrency: NonZeroUsize::new(3).unwrap(),
    };
    let judgement = judge(case, &out, &|| false, &|_| ()).map_err(|error| error.to_string())?.unwrap();
    let written: Value = read(&folder.path().join("judgement.json"));
    assert_eq!(written["win_rate"], serde_json::to_value(judgement.rates.win_rate).unwrap());
    assert_eq!(written["models"], json!(["fake-1"]));
    Ok(judgement)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn rate(rate: f64, interval: [f64; 2]) -> Option<Rate> {
    Some(Rate { rate, interval: Some(interval) })
}

#[test]
fn a_judge_that_always_says_first_prefers_nobody_and_disagrees_with_itself() {
    let fake = Fake::new(|_| Reply::Says("first"));
    let Judgement { rates, .. } = compare(settings(&fake), &["one", "two", "three!"], &["1", "22", "333"]).unwrap();
    assert_eq!(rates.counts, Counts { pairs: 3, judged: 3, a: 3, b: 3, tie: 0, unparsable: 0 });
    assert_eq!(rates.win_rate, rate(0.5, [0.5, 0.5]));
    assert_eq!(rates.disagreement, rate(1.0, [1.0, 1.0]));
    assert_eq!(rates.first, rate(1.0, [1.0, 1.0]));
    let Controlled::Fitted { rate, slope, .. } = rates.length_controlled else { panic!("{rates:?}") };
    assert_eq!((rate, slope), (0.5, 0.0));
    assert!(fake.asked().values().all(|times| *times == 1) && fake.asked().len() == 6);
}

fn longer(shown: &Shown) -> Reply {
    Reply::Says(match shown.first.len().cmp(&shown.second.len()) {
        std::cmp::Ordering::Greater => "first",
        std::cmp::Ordering::Less => "second",
        std::cmp::Ordering::Equal => "tie",
    })
}

#[test]
fn a_judge_of_length_alone_has_a_win_rate_and_none_with_lengths_controlled() {
    let fake = Fake::new(longer);
    let Judgement { rates, .. } =
        compare(settings(&fake), &["four", "xx", "xx", "four"], &["one", "y", "yy", "y"]).unwrap();
    assert_eq!(rates.counts, Counts { pairs: 4, judged: 4, a: 6, b: 0, tie: 2, unparsable: 0 });
    assert_eq!(rates.win_rate.unwrap().rate, 0.875);
    assert_eq!(rates.disagreement, rate(0.0, [0.0, 0.0]));
    assert_eq!(rates.first.unwrap().rate, 0.5);
    assert!(
        matches!(rates.length_controlled, Controlled::None { none } if none.starts_with("a difference of lengths"))
    );
}

/// Log-odds of ln 3 for the longer one and of nothing else: what length explains is taken away, to the last digit.
#[test]
fn with_lengths_controlled_a_preference_for_length_is_none_for_a_model() {
    let fake = Fake::new(|shown| Reply::Says(if shown.first.contains("better") { "first" } else { "second" }));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (index, a_is_longer) in (0..16).map(|index| (index, index % 4 != 0)) {
        // Of every four pairs with the same one longer, it is the better one in three.
        let longer_is_better = (index / 4) % 4 != 0;
        let (long, short) = if longer_is_better { ("better, longer", "brief!") } else { ("plain, longer!", "better") };
        let (one, other) = if a_is_longer { (long, short) } else { (short, long) };
        a.push(one);
        b.push(other);
    }
    let Judgement { rates, .. } = compare(settings(&fake), &a, &b).unwrap();
    assert_eq!(rates.win_rate.unwrap().rate, 0.625, "nine of twelve and one of four");
    let Controlled::Fitted { rate, interval: [low, high], intercept, slope } = rates.length_controlled else {
        panic!("{rates:?}")
    };
    assert!((rate - 0.5).abs() < 1e-9 && intercept.abs() < 1e-9, "{rate}");
    assert!(low < 0.5 && high > 0.5, "{low} {high}");
    // The differences are 8 or −8, twelve and four of them; their standard deviation is that of a sample.
    let deviation = (16.0 * 64.0 * (1.0 - 0.25) / 15.0_f64).sqrt();
    assert!((slope * (8.0 / deviation).tanh() - 3f64.ln()).abs() < 1e-9, "{slope}");
}

#[test]
fn a_judge_of_a_word_finds_it_wherever_it_is_shown() {
    let fake = Fake::new(|shown| {
        Reply::Says(match (shown.first.contains("please"), shown.second.contains("please")) {
            (true, false) => "Both answer.\n\nFirst",
            (false, true) => "SECOND\n",
            _ => "tie",
        })
    });
    let Judgement { rates, .. } =
        compare(settings(&fake), &["please", "a", "please", "b"], &["no", "please", "please", "c"]).unwrap();
    assert_eq!(rates.counts, Counts { pairs: 4, judged: 4, a: 2, b: 2, tie: 4, unparsable: 0 });
    assert_eq!((rates.win_rate.unwrap().rate, rates.disagreement.unwrap().rate), (0.5, 0.0));
}

#[test]
fn a_judge_that_is_busy_is_asked_again_when_it_says() {
    let fake = Fake::new(|shown| match shown.before {
        0 => Reply::Fails(429, Some("0"), "too many requests"),
        1 => Reply::Fails(503, Some("1"), ""),
        _ => Reply::Says("first"),
    });
    // Were the judge not asked how long, this would take minutes.
    let settings = Settings { pause: Duration::from_secs(60), ..settings(&fake) };
    let begun = Instant::now();
    let Judgement { rates, .. } = compare(settings, &["a"], &["b"]).unwrap();
    assert!((1..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(rates.counts.judged, 1);
    assert_eq!(fake.asked().into_values().collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn a_judge_that_is_late_or_is_no_judge_for_a_while_is_asked_again() {
    let fake = Fake::new(|shown| match shown.before {
        0 => Reply::Late(Duration::from_secs(5), "second"),
        1 => Reply::Fails(200, None, "<html>starting</html>"),
        _ => Reply::Says("first"),
    });
    let settings = Settings { timeout: Duration::from_secs(1), tries: 9, ..settings(&fake) };
    assert_eq!(compare(settings, &["a"], &["b"]).unwrap().rates.first.unwrap().rate, 1.0);
}

#[test]
fn a_judge_that_does_not_answer_is_given_up_with_what_it_said() {
    let fake = Fake::new(|_| Reply::Fails(500, None, "out of\nmemory"));
    let failed = compare(settings(&fake), &["a"], &["b"]).unwrap_err();
    assert!(failed.starts_with(&format!("judge {}: 500 ", fake.url)), "{failed}");
    assert!(failed.ends_with(", got out of memory, 3 times"), "{failed}");
    // What will not pass is asked once.
    let fake = Fake::new(|_| Reply::Fails(401, None, "{\"error\": \"no key\"}"));
    let failed = compare(Settings { tries: 9, ..settings(&fake) }, &["a"], &["b"]).unwrap_err();
    assert!(failed.ends_with(", got {\"error\": \"no key\"}"), "{failed}");
    assert!(fake.asked().into_values().all(|times| times == 1));
    let nobody = Settings { url: "http://127.0.0.1:1/v1".to_owned(), ..settings(&fake) };
    let failed = compare(nobody, &["a"], &["b"]).unwrap_err();
    assert!(failed.starts_with("judge http://127.0.0.1:1/v1: ") && failed.contains("refused"), "{failed}");
}

#[test]
fn a_judge_that_answers_without_end_is_cut_off_and_its_control_codes_are_not_printed() {
    let long: &str = Box::leak("x".repeat(5 << 20).into_boxed_str());
    let fake = Fake::new(move |_| Reply::Fails(200, None, long));
    let failed = compare(Settings { tries: 1, ..settings(&fake) }, &["a"], &["b"]).unwrap_err();
    assert!(failed.ends_with("expected a response of at most 4194304 bytes, got more, 1 times"), "{failed}");
    let fake = Fake::new(|_| Reply::Fails(400, None, "\u{1b}]0;title\u{7}no\u{9b}2J \u{202e}model"));
    let failed = compare(settings(&fake), &["a"], &["b"]).unwrap_err();
    assert!(failed.ends_with(", got ]0;titleno2J model"), "{failed:?}");
}

#[test]
fn no_judge_makes_anybody_wait_longer_than_ten_minutes() {
    let fake = Fake::new(|_| Reply::Fails(429, Some("18446744073709551615"), "later"));
    let folder = tempfile::tempdir().unwrap();
    let out = OutputFolder::create(folder.path()).unwrap();
    let (judge_, template) = (Judge::new(settings(&fake), None).unwrap(), Template::read(None).unwrap());
    let (a, b) = (outputs("a", &["one"]), outputs("b", &["two"]));
    let case = Case { a: &a, b: &b, judge: &judge_, template: &template, concurrency: NonZeroUsize::new(1).unwrap() };
    let pauses = std::sync::Mutex::new(Vec::new());
    let stops = || !pauses.lock().unwrap().is_empty();
    let judged = judge(case, &out, &stops, &|event| {
        if let lm::judge::Event::Waits { pause, .. } = event {
            pauses.lock().unwrap().push(pause);
        }
    });
    assert!(judged.unwrap().is_none());
    assert_eq!(*pauses.lock().unwrap(), [Duration::from_secs(600)]);
}

#[test]
fn answers_that_are_no_verdict_are_counted_apart_and_no_guess_is_made() {
    let fake = Fake::new(|shown| {
        Reply::Says(match shown.first.as_str() {
            "a1" => "I think the first",
            "a2" => "",
            _ => "tie",
        })
    });
    let Judgement { rates, .. } = compare(settings(&fake), &["a0", "a1", "a2"], &["b0", "b1", "b2"]).unwrap();
    assert_eq!(rates.counts, Counts { pairs: 3, judged: 1, a: 0, b: 0, tie: 4, unparsable: 2 });
    assert_eq!(rates.win_rate, Some(Rate { rate: 0.5, interval: None }));
    let none = Fake::new(|_| Reply::Says("?"));
    let Judgement { rates, .. } = compare(settings(&none), &["a"], &["b"]).unwrap();
    assert_eq!((rates.win_rate, rates.counts.unparsable), (None, 2));
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
        fake.wait_for(requests);
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
    // A whole comparison asks nothing, and says the same.
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
    fake.wait_for(4);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("the same command goes on with the verdicts in"));
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
        "judge: expected an address as http",
    );
    assert!(fake.requests().is_empty());
}

/// Whose verdicts they are, and how long the answers.
fn verdicts() -> impl Strategy<Value = Vec<(usize, usize, [Option<Choice>; 2])>> {
    let choice = || prop::sample::select(vec![Some(Choice::A), Some(Choice::B), Some(Choice::Tie), None]);
    prop::collection::vec((0..40_usize, 0..40_usize, [choice(), choice()]), 1..40)
}

fn rates(pairs: &[(usize, usize, [Option<Choice>; 2])]) -> Rates {
    let output = |length: usize| Output {
        instruction: String::new(),
        output: "x".repeat(length),
        generator: None,
        dataset: None,
    };
    let texts: Vec<_> = pairs.iter().map(|(a, b, _)| (output(*a), output(*b))).collect();
    let shown: Vec<_> = texts.iter().map(|(a, b)| Pair { a, b }).collect();
    let verdict = |(pair, (_, _, choices)): (usize, &(usize, usize, [Option<Choice>; 2]))| {
        [0, 1].map(|index| Verdict {
            pair,
            order: Order::BOTH[index],
            verdict: choices[index],
            answer: String::new(),
            fingerprint: String::new(),
            model: String::new(),
        })
    };
    let verdicts: Vec<_> = pairs.iter().enumerate().flat_map(verdict).collect();
    Rates::new(&shown, &verdicts)
}

proptest! {
    #[test]
    fn the_rate_of_b_over_a_mirrors_that_of_a_over_b(pairs in verdicts()) {
        // The judge sees the same, and the files have other names: what A's order was is B's.
        let mirror = |choice: Option<Choice>| choice.map(|choice| match choice {
            Choice::A => Choice::B,
            Choice::B => Choice::A,
            Choice::Tie => Choice::Tie,
        });
        let swapped: Vec<_> = pairs.iter().map(|(a, b, [one, other])| (*b, *a, [mirror(*other), mirror(*one)])).collect();
        let (one, other) = (rates(&pairs), rates(&swapped));
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
        prop_assert_eq!(
            (one.counts.a, one.counts.b, one.counts.tie, one.counts.judged),
            (other.counts.b, other.counts.a, other.counts.tie, other.counts.judged)
        );
        match (one.win_rate, other.win_rate) {
            (Some(one), Some(other)) => {
                prop_assert!((0.0..=1.0).contains(&one.rate) && near(one.rate, 1.0 - other.rate));
                if let (Some([low, high]), Some([mirrored_low, mirrored_high])) = (one.interval, other.interval) {
                    prop_assert!(low <= one.rate && one.rate <= high);
                    prop_assert!(near(low, 1.0 - mirrored_high) && near(high, 1.0 - mirrored_low));
                }
            }
            (one, other) => prop_assert_eq!(one, other),
        }
        prop_assert_eq!(one.disagreement, other.disagreement);
        prop_assert_eq!(one.first.map(|first| first.rate), other.first.map(|first| first.rate));
        match (one.length_controlled, other.length_controlled) {
            (Controlled::Fitted { rate, interval: [low, high], .. }, Controlled::Fitted { rate: other, interval, .. }) => {
                prop_assert!(low <= rate && rate <= high);
                prop_assert!(near(rate, 1.0 - other) && near(low, 1.0 - interval[1]) && near(high, 1.0 - interval[0]));
            }
            (one, other) => prop_assert_eq!(one, other),
        }
    }
}

#[test]
fn rates_agree_with_alpaca_eval_and_statsmodels() {
    for case in answers("alpaca_eval_outputs.json")["rates"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let number = |field: &str| case[field].as_f64().unwrap();
        let scores = numbers(&case["scores"]);
        let Rate { rate, interval } = Rate::new(&scores).unwrap();
        let half = (interval.unwrap()[1] - interval.unwrap()[0]) / 2.0;
        assert!((rate - number("win_rate")).abs() < 1e-12, "{name}");
        // Student's t is near 2 for many pairs; how near, its own test says.
        let t = half / number("standard_error");
        assert!(if scores.len() > 100 { (1.97..1.99).contains(&t) } else { t > 2.4 }, "{name}: {t}");
        let lengths = numbers(&case["lengths_a"]).into_iter().zip(numbers(&case["lengths_b"]));
        let points: Vec<_> = lengths.map(|(a, b)| a - b).zip(scores.iter().copied()).collect();
        let Controlled::Fitted { rate, interval: [low, high], intercept, slope } = Controlled::new(&points) else {
            panic!("{name}")
        };
        close(&[intercept, slope], &[number("intercept"), number("slope")], 1e-9, name);
        assert!((rate - 1.0 / (1.0 + (-intercept).exp())).abs() < 1e-12, "{name}");
        let own = &case["alpaca_eval"];
        close(&[intercept, slope], &[own["intercept"].as_f64().unwrap(), own["slope"].as_f64().unwrap()], 1e-4, name);
        // statsmodels' HC0 knows no correction for small samples.
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let half = (logit(high) - logit(low)) / 2.0;
        let count = scores.len() as f64;
        let t = half / (number("intercept_error") * (count / (count - 2.0)).sqrt());
        let expected = HashMap::from([(200, 1.9720174778338955), (120, 1.9802722492734003), (6, 2.7764451051977934)]);
        assert!((t - expected[&scores.len()]).abs() < 1e-6, "{name}: {t}");
    }
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
    let found: HashMap<_, _> = lm::judge::question::pairs(&a, &b)
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
    // What alpaca_eval's own evaluation says where its judge prefers the longer output, and what a comparison by such a judge does.
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

/// As many ASCII characters, for a judge that counts bytes.
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
