//! Judgements by judges whose preferences are known: preferences, failures and retries.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use evaluation::judge::ask::{Judge, JudgeSettings};
use evaluation::judge::judgement::Judgement;
use evaluation::judge::question::{Pair, Template};
use evaluation::judge::rates::{Controlled, Counts, Rate, Rates};
use evaluation::judge::verdict::{Choice, Order, Verdict};
use evaluation::judge::{Case, judge};
use evaluation::outputs::{Output, Outputs};
use program::OutputFolder;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, Shown};
use crate::oracle::{answers, close, numbers};

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

fn settings(fake: &Fake) -> JudgeSettings {
    JudgeSettings {
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

/// Compares the answers in a new folder.
fn compare(settings: JudgeSettings, a: &[&str], b: &[&str]) -> Result<Judgement, String> {
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

/// The judge prefers the longer answer with log-odds ln 3 and nothing else, so length control removes the preference to
/// the last digit.
#[test]
fn with_lengths_controlled_a_preference_for_length_is_none_for_a_model() {
    let fake = Fake::new(|shown| Reply::Says(if shown.first.contains("better") { "first" } else { "second" }));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (index, a_is_longer) in (0..16).map(|index| (index, index % 4 != 0)) {
        // In every four pairs with the same longer answer, it is preferred in three.
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
    // If the requested pause were ignored, this would take minutes.
    let settings = JudgeSettings { pause: Duration::from_secs(60), ..settings(&fake) };
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
    let settings = JudgeSettings { timeout: Duration::from_secs(1), tries: 9, ..settings(&fake) };
    assert_eq!(compare(settings, &["a"], &["b"]).unwrap().rates.first.unwrap().rate, 1.0);
}

#[test]
fn a_judge_that_does_not_answer_is_given_up_with_what_it_said() {
    let fake = Fake::new(|_| Reply::Fails(500, None, "out of\nmemory"));
    let failed = compare(settings(&fake), &["a"], &["b"]).unwrap_err();
    assert!(failed.starts_with(&format!("judge {}: 500 ", fake.url)), "{failed}");
    assert!(failed.ends_with(", got out of memory, 3 times"), "{failed}");
    // A permanent failure is not retried.
    let fake = Fake::new(|_| Reply::Fails(401, None, "{\"error\": \"no key\"}"));
    let failed = compare(JudgeSettings { tries: 9, ..settings(&fake) }, &["a"], &["b"]).unwrap_err();
    assert!(failed.ends_with(", got {\"error\": \"no key\"}"), "{failed}");
    assert!(fake.asked().into_values().all(|times| times == 1));
    let nobody = JudgeSettings { url: "http://127.0.0.1:1/v1".to_owned(), ..settings(&fake) };
    let failed = compare(nobody, &["a"], &["b"]).unwrap_err();
    assert!(failed.starts_with("judge http://127.0.0.1:1/v1: ") && failed.contains("refused"), "{failed}");
}

#[test]
fn a_judge_that_answers_without_end_is_cut_off_and_its_control_codes_are_not_printed() {
    let long: &str = Box::leak("x".repeat(5 << 20).into_boxed_str());
    let fake = Fake::new(move |_| Reply::Fails(200, None, long));
    let failed = compare(JudgeSettings { tries: 1, ..settings(&fake) }, &["a"], &["b"]).unwrap_err();
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
        if let evaluation::judge::Event::Waits { pause, .. } = event {
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

#[test]
fn a_key_is_sent_in_the_authorization_header_alone() {
    let fake = Fake::new(|_| Reply::Says("tie"));
    let judge = Judge::new(settings(&fake), Some("secret".to_owned())).unwrap();
    let (a, b) = (outputs("a", &["x"]), outputs("b", &["y"]));
    let pair = Pair { a: &a.answers[0].1, b: &b.answers[0].1 };
    let question = Template::read(None).unwrap().render(pair, Order::AThenB).unwrap();
    let answer = judge.ask(&judge.body(&question).unwrap(), &|| false, &|_, _| ()).unwrap().unwrap();
    assert_eq!(answer.text, "tie");
    let request = fake.requests().remove(0);
    assert!(request.headers.contains("authorization: bearer secret\r\n"), "{}", request.headers);
    assert!(!request.body.contains("secret"), "{}", request.body);
}

/// Verdicts on pairs, with the lengths of the answers.
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
        // The judge reads the same questions with the files exchanged, so the verdicts and orders are mirrored.
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
        // Student's t is close to 2 for many pairs; another test checks the exact quantile.
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
        // statsmodels' HC0 has no small-sample correction.
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let half = (logit(high) - logit(low)) / 2.0;
        let count = scores.len() as f64;
        let t = half / (number("intercept_error") * (count / (count - 2.0)).sqrt());
        let expected = HashMap::from([(200, 1.9720174778338955), (120, 1.9802722492734003), (6, 2.7764451051977934)]);
        assert!((t - expected[&scores.len()]).abs() < 1e-6, "{name}: {t}");
    }
}
