//! Comparison of hostile lines with their answers in 256 bits (`tests/oracles/precise.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

#[path = "../examples/evaluate/protocol.rs"]
mod protocol;

use serde_json::Value;

/// Allowed error of an answer, in units in the last place of its condition number.
const UNITS: f64 = 4.0;

/// Error of a double relative to an exact number of two halves, in units of the condition; underflow is ignored.
fn off(own: &Value, exact: &Value) -> f64 {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let [high, low, condition] = [0, 1, 2].map(|place| number(&exact[place]));
    let apart = (number(own) - high - low).abs();
    if apart <= 1e-260 {
        return 0.0;
    }
    let power = f64::from_bits(condition.max(f64::MIN_POSITIVE).to_bits() & f64::INFINITY.to_bits());
    // Of what is not a number, too many.
    if apart.is_nan() { f64::INFINITY } else { apart / (power * f64::EPSILON) }
}

/// Calls a function with pairs of computed and exact numbers, by name.
fn for_each(own: &Value, exact: &Value, name: &str, each: &mut impl FnMut(&str, &Value, &Value)) {
    match exact {
        Value::Object(members) => {
            for (key, exact) in members {
                for_each(&own[key], exact, &format!("{name}.{key}"), each);
            }
        }
        Value::Array(places) if places.iter().any(Value::is_array) => {
            assert_eq!(own.as_array().map(Vec::len), Some(places.len()), "{name}");
            for (place, exact) in places.iter().enumerate() {
                for_each(&own[place], exact, &format!("{name}[{place}]"), each);
            }
        }
        exact => each(name, own, exact),
    }
}

#[test]
fn hostile_numbers_are_within_four_units_of_the_condition_of_their_256_bit_values() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracles/precise_lines.json");
    let oracle: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut numbers = 0;
    for case in oracle["cases"].as_array().unwrap() {
        let line = case["line"].to_string();
        let answer: Value = serde_json::from_str(&protocol::answer(line.as_bytes()).unwrap()).unwrap();
        for part in ["loss", "cotangents"] {
            for_each(&answer[part], &case[part], part, &mut |name, own, exact| {
                numbers += 1;
                let units = off(own, exact);
                assert!(units <= UNITS, "{line}\n{name}: {own} is {units} units from {exact}");
            });
        }
    }
    assert!(numbers > 5000, "{numbers}");
}

/// Objectives of which a number of the recorded run was further off, and the number. `tests/oracles/README.md` gives
/// the causes.
const BEYOND: &[&str] = &[
    "demonstrations: ift loss",
    "demonstrations: ift log_prob",
    "demonstrations: sft loss",
    "preferences: aot loss",
    "preferences: orpo loss",
    "preferences: cpo loss",
    "preferences: ipo alpha loss",
    "groups: grpo log_prob",
    "groups: rloo loss",
    "groups: sapo log_prob",
    "groups: policy_gradient clip",
    "groups: policy_gradient none",
    "groups: policy_gradient sapo",
    "rollouts: ppo loss",
];

/// Objectives whose numbers of long responses are running sums over 32k tokens: there, an error of more than four units
/// is not rare.
const RUNNING_SUMS: &[&str] = &["demonstrations: ift loss", "demonstrations: ift log_prob", "demonstrations: sft loss"];

#[test]
fn a_million_inputs_of_each_family_were_within_four_units_but_for_those_that_are_listed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracles/precise.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let families = recorded["families"].as_object().unwrap();
    assert!(families.len() >= 5, "{}", families.len());
    for (family, own) in families {
        assert!(own["inputs"].as_u64().unwrap() >= 1_000_000, "{family}");
        assert!(own["responses_of_32k"].as_u64().unwrap() >= 100, "{family}");
        let (mut numbers, mut beyond) = (0, 0);
        for (objective, counts) in own["objectives"].as_object().unwrap() {
            let name = format!("{family}: {objective}");
            let off = counts["beyond_4_units"].as_u64().unwrap();
            assert!(off == 0 || BEYOND.iter().any(|listed| name.starts_with(listed)), "{name}: {off}");
            numbers += counts["numbers"].as_u64().unwrap();
            if !RUNNING_SUMS.contains(&name.as_str()) {
                beyond += off;
            }
        }
        assert!(numbers >= 1_000_000 && beyond * 100_000 < numbers, "{family}: {beyond} of {numbers}");
    }
}
