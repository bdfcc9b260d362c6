//! Agreement with the peers' recorded answers; `oracles/README.md` lists their origins.

use std::io::Write;
use std::process::Stdio;

use escargot::CargoBuild;
use lake::environment::{Dynamics, Environment, Rewards};
use lake::map::{Action, Map};
use lake::measure::performance;
use lake::network::{Encoding, Inputs, Network};
use lake::policy::{LakePolicy, given};
use lake::solver::{Target, optimal_policy, value_iteration};
use lake::{measure, trajectory};
use objective::{Parameters, registry};
use serde_json::Value;
use tests::{assert_close, numbers, oracle};
use training::{Optimizer, OptimizerSettings, Policy, Schedule, Step, StepSettings, fill_reference};

/// A name and its parameters.
fn named(value: &Value) -> (String, Parameters) {
    let mut parameters: Parameters = serde_json::from_value(value.clone()).unwrap();
    parameters.remove("name");
    (value["name"].as_str().unwrap().to_owned(), parameters)
}

fn optimizer(value: &Value) -> OptimizerSettings {
    let (name, parameters) = named(value);
    OptimizerSettings::build(&name, &parameters).unwrap()
}

/// The answers of the `evaluate` example to the given lines.
fn evaluate(lines: &str) -> Vec<Value> {
    let example = CargoBuild::new().package("objective").example("evaluate").run().unwrap();
    let mut child = example.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_bad_line_is_answered_by_an_error_that_names_the_field_and_the_stream_goes_on() {
    let good = r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1.0]]}}"#;
    let bad = [
        (r#"{"#, "EOF"),
        (r#""#, "EOF"),
        (r#"{"chosen": {"log_prob": [[-1]]}}"#, "objective"),
        (r#"{"objective": {}, "chosen": {"log_prob": [[-1]]}}"#, "objective: name: expected a method's name, got none"),
        (r#"{"objective": {"name": "spo"}, "chosen": {"log_prob": [[-1]]}}"#, "allowed: sft, dpo, orpo"),
        (r#"{"objective": {"name": "sft", "beta": 1}, "chosen": {"log_prob": [[-1]]}}"#, "sft.beta: unknown"),
        (
            r#"{"objective": {"name": "ift", "lambda": 1.5}, "chosen": {"log_prob": [[-1]]}}"#,
            "0 <= lambda <= 1, got 1.5",
        ),
        (
            r#"{"objective": {"name": "ift", "gamma": 0.9, "propagation": "none"}, "chosen": {"log_prob": [[-1]]}}"#,
            "ift.gamma: not used",
        ),
        (r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1], []]}}"#, "chosen.log_prob"),
        (r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": []}}"#, "chosen.log_prob"),
        (r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1, "x"]]}}"#, "chosen.log_prob[0][1]"),
        (r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[0.5]]}}"#, "chosen.log_prob: expected -1e30 to 0"),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1e31]]}}"#,
            "chosen.log_prob: expected -1e30 to 0",
        ),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]], "reference_log_prob": [[-1]]}}"#,
            "chosen.reference_log_prob: not used",
        ),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]]}, "rejected": {"log_prob": [[-1]]}}"#,
            "rejected: not used",
        ),
        (r#"{"objective": {"name": "sft"}, "labelled": {"log_prob": [[-1]]}}"#, "labelled"),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]]}, "totals": {"tokens": 0, "responses": 1, "pairs": 0}}"#,
            "totals.tokens",
        ),
        (r#"{"objective": {"name": "orpo"}, "chosen": {"log_prob": [[-1]]}}"#, "rejected: missing"),
        (
            r#"{"objective": {"name": "orpo"}, "chosen": {"log_prob": [[-1]]}, "rejected": {"log_prob": [[-1], [-1]]}}"#,
            "rejected.log_prob",
        ),
        (
            r#"{"objective": {"name": "orpo"}, "chosen": {"log_prob": [[-1]]}, "rejected": {"log_prob": [[1]]}}"#,
            "rejected.log_prob",
        ),
        (
            r#"{"objective": {"name": "dpo"}, "chosen": {"log_prob": [[-1]]}, "rejected": {"log_prob": [[-1]]}}"#,
            "chosen.reference_log_prob: missing",
        ),
        (r#"[{"name": "sft"}, {"log_prob": [[-1]]}]"#, "expected an object, got an array"),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]]}, "totals": [1, 1, 0, 0]}"#,
            "totals: expected an object, got an array",
        ),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1], [-1, -2]], "log_prob": [[-1]]}}"#,
            "\"log_prob\"",
        ),
        (
            r#"{"objective": {"name": "dpo"}, "chosen": {"log_prob": [[-1], [-1]], "reference_log_prob": [[-1]]}, "rejected": {"log_prob": [[-1]], "reference_log_prob": [[-1]]}}"#,
            "chosen.reference_log_prob: expected 2 responses as in log_prob, got 1",
        ),
        (
            r#"{"objective": {"name": "dpo"}, "chosen": {"log_prob": [[-1, -1]], "reference_log_prob": [[-1]]}, "rejected": {"log_prob": [[-1]], "reference_log_prob": [[-1]]}}"#,
            "chosen.reference_log_prob[0]: expected 2 numbers as in log_prob, got 1",
        ),
        (r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]]}} {}"#, "trailing characters"),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]]}, "state": {"rewards": {"count": 1, "mean": 0}}}"#,
            "state.rewards: not used by this objective",
        ),
        (
            r#"{"objective": {"name": "sft"}, "chosen": {"log_prob": [[-1]]}, "state": {"terms": [{}]}}"#,
            "state.terms: not used by this objective",
        ),
        (
            r#"{"objective": {"name": "sum", "terms": [{"name": "sft"}]}, "chosen": {"log_prob": [[-1]]}, "state": {"terms": [{}, {}]}}"#,
            "state.terms: expected 1, one a term, got 2",
        ),
        (
            r#"{"objective": {"name": "sum", "terms": [{"name": "sft", "weight": 0}]}, "chosen": {"log_prob": [[-1]]}}"#,
            "sum.terms: expected at least one term with a weight above 0",
        ),
        (
            r#"{"objective": {"name": "grpo"}, "groups": {"log_prob": [[-1]], "behaviour_log_prob": [[-1]], "group": [0], "reward": [1e31]}}"#,
            "groups.reward: expected -1e30 to 1e30, or none, for response 0, got 1e31",
        ),
    ];
    let lines: String = bad.iter().map(|(line, _)| format!("{line}\n{good}\n")).collect();
    let answers = evaluate(&lines);
    assert_eq!(answers.len(), 2 * bad.len());
    for ((line, expected), answers) in bad.iter().zip(answers.chunks(2)) {
        let error = answers[0]["error"].as_str().unwrap_or_else(|| panic!("no error for {line}"));
        assert!(error.contains(expected), "{line}\n  {error}\n  lacks {expected}");
        assert_eq!(answers[1]["loss"], 1.0);
    }
}

#[test]
fn a_key_that_stands_twice_is_refused_by_its_name_wherever_it_stands() {
    let side = r#"{"log_prob": [[-1], [-2]], "behaviour_log_prob": [[-1], [-2]], "group": [0, 0], "reward": [1, 0]"#;
    let good = format!(r#"{{"objective": {{"name": "grpo"}}, "groups": {side}}}}}"#);
    let twice = [
        ("reward", format!(r#"{{"objective": {{"name": "grpo"}}, "groups": {side}, "reward": [0, 1]}}}}"#)),
        ("log_prob", format!(r#"{{"objective": {{"name": "grpo"}}, "groups": {side}, "log_prob": [[-1], [-2]]}}}}"#)),
        ("beta", format!(r#"{{"objective": {{"name": "grpo", "beta": 0, "beta": 0}}, "groups": {side}}}}}"#)),
        (
            "objective",
            format!(r#"{{"objective": {{"name": "sft"}}, "objective": {{"name": "grpo"}}, "groups": {side}}}}}"#),
        ),
        (
            "weight",
            r#"{"objective": {"name": "sum", "terms": [{"name": "sft", "weight": 1, "weight": 2}]}}"#.to_owned(),
        ),
        (
            "mean",
            r#"{"objective": {"name": "bco"}, "state": {"rewards": {"count": 1, "mean": 1, "mean": 2}}}"#.to_owned(),
        ),
    ];
    let lines: String = twice.iter().map(|(_, line)| format!("{line}\n{good}\n")).collect();
    for ((key, line), answers) in twice.iter().zip(evaluate(&lines).chunks(2)) {
        let error = answers[0]["error"].as_str().unwrap_or_else(|| panic!("no error for {line}"));
        assert!(error.contains(&format!("duplicate key \"{key}\"")), "{line}: {error}");
        assert_eq!(answers[1].get("error"), None);
    }
}

#[test]
fn a_byte_order_mark_before_a_line_is_skipped() {
    let answers = evaluate("\u{feff}{\"objective\": {\"name\": \"sft\"}, \"chosen\": {\"log_prob\": [[-1.0]]}}\n");
    assert_eq!(answers[0]["loss"], 1.0);
}

#[test]
fn no_number_that_comes_back_from_outside_panics_or_gives_one_that_is_none() {
    let most = u64::MAX;
    let side = r#""log_prob": [[-1.0], [-2.0]], "reference_log_prob": [[-2.0], [-1.0]]"#;
    let bco = |state: &str| {
        let labelled = format!(r#"{{{side}, "desirable": [true, false]}}"#);
        format!(r#"{{"objective": {{"name": "bco"}}, "labelled": {labelled}, "state": {{"rewards": {state}}}}}"#)
    };
    let sft = |totals: String| {
        format!(r#"{{"objective": {{"name": "sft"}}, "chosen": {{"log_prob": [[-1.0]]}}, "totals": {totals}}}"#)
    };
    let grpo = format!(
        r#"{{"objective": {{"name": "grpo"}}, "groups": {{"log_prob": [[-1], [-2]], "behaviour_log_prob": [[-1], [-2]],
           "group": [0, {most}], "reward": [1e30, -1e30]}}}}"#
    );
    let cases = [
        (
            bco(&format!(r#"{{"count": {most}, "mean": 0.5}}"#)),
            Some("state.rewards: count: expected at most 9007199254740992"),
        ),
        (bco(r#"{"count": 9007199254740992, "mean": 0.5}"#), None),
        (bco(r#"{"count": 3, "mean": 1.7e308}"#), Some("state.rewards: mean: expected -1e60 to 1e60, got 1.7e308")),
        (bco(r#"{"count": 3, "mean": -1e60}"#), None),
        (bco(r#"{"count": -1, "mean": 0}"#), Some("state.rewards.count")),
        (bco(r#"{"count": 0, "mean": 1}"#), Some("state.rewards: mean: expected 0 before the first number, got 1")),
        (bco("[3, 0.5]"), Some("state.rewards: expected an object, got an array")),
        (sft(format!(r#"{{"tokens": {most}, "responses": {most}, "pairs": {most}, "chosen_tokens": {most}}}"#)), None),
        (sft(r#"{"tokens": 18446744073709551616}"#.to_owned()), Some("totals.tokens")),
        (grpo.replace('\n', " "), None),
    ];
    let lines: String = cases.iter().map(|(line, _)| format!("{line}\n")).collect();
    for ((line, expected), answer) in cases.iter().zip(evaluate(&lines)) {
        match expected {
            None => {
                assert!(answer["loss"].is_number() && !answer.to_string().contains("null"), "{line}: {answer}");
            }
            Some(expected) => {
                let error = answer["error"].as_str().unwrap_or_else(|| panic!("no error for {line}"));
                assert!(error.contains(expected), "{line}: {error}");
            }
        }
    }
}

#[test]
fn totals_left_out_are_the_lines_own() {
    let line = |totals: &str| {
        format!(
            r#"{{"objective": {{"name": "sft"}}, "chosen": {{"log_prob": [[-1.0, -3.0]]}}, "totals": {totals}}}{}"#,
            "\n"
        )
    };
    let answers = evaluate(&[line("{}"), line(r#"{"responses": 5}"#), line(r#"{"tokens": 8}"#)].concat());
    let losses: Vec<_> = answers.iter().map(|answer| answer["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses, [2.0, 2.0, 0.5]);
}

#[test]
fn optimizers_follow_pytorchs_paths() {
    for case in oracle("optimizer")["updates"].as_array().unwrap() {
        let settings = optimizer(&case["optimizer"]);
        let mut parameters = numbers(&case["initial"]);
        let mut state = Optimizer::new(settings, parameters.len());
        let rates = numbers(&case["learning_rates"]);
        for (step, rate) in rates.into_iter().enumerate() {
            state.update(&mut parameters, &numbers(&case["gradients"][step]), rate, 1.0);
            let theirs = numbers(&case["parameters"][step]);
            assert_close(&parameters, &theirs, 1e-13, 1e-15, &format!("{settings:?}, step {step}"));
        }
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    for case in oracle("optimizer")["schedules"].as_array().unwrap() {
        let shape = serde_json::from_value(case["schedule"].clone()).unwrap();
        let schedule = Schedule { shape, warmup_ratio: case["warmup_ratio"].as_f64().unwrap() };
        let steps = case["steps"].as_u64().unwrap() as usize;
        let ours: Vec<_> = (0..steps).map(|step| schedule.factor(step, steps)).collect();
        assert_close(&ours, &numbers(&case["factors"]), 1e-14, 1e-16, &format!("{schedule:?}, {steps} steps"));
    }
}

/// A policy whose parameters become its gradient, so that tests can read what a step does to the gradient.
struct GradientPolicy {
    gradient: Vec<f64>,
    applied: Vec<f64>,
}

impl Policy for GradientPolicy {
    type States = ();
    type Forward = ();
    type Optimizer = ();
    type Error = std::convert::Infallible;

    fn forward(&self, (): &()) -> Result<(), Self::Error> {
        Ok(())
    }

    fn anticipate(&self, (): &(), _: f64, _: objective::Freeze) -> Result<(), Self::Error> {
        Ok(())
    }

    fn statistics(
        &self,
        (): &(),
        _: training::Frozen<'_, ()>,
        tokens: &[usize],
        _: enumset::EnumSet<objective::Statistic>,
        out: &mut objective::TokenStatistics,
    ) -> Result<(), Self::Error> {
        out.log_prob = vec![-1.0; tokens.len()];
        Ok(())
    }

    fn pull_back(
        &mut self,
        (): &(),
        (): (),
        _: training::Frozen<'_, ()>,
        _: &[usize],
        _: &objective::TokenStatistics,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    fn clear_gradient(&mut self) {}

    fn gradient_norm(&self) -> Result<f64, Self::Error> {
        Ok(self.gradient.iter().map(|g| g * g).sum::<f64>().sqrt())
    }

    fn update(&mut self, (): &mut (), _: f64, scale: f64) -> Result<(), Self::Error> {
        self.applied = self.gradient.iter().map(|gradient| scale * gradient).collect();
        Ok(())
    }
}

#[test]
fn clipping_is_pytorchs() {
    let sft = registry::build("sft", &Parameters::new()).unwrap();
    for case in oracle("optimizer")["clipping"].as_array().unwrap() {
        let mut policy = GradientPolicy { gradient: numbers(&case["gradient"]), applied: Vec::new() };
        let batch = training::MicroBatch {
            states: (),
            reference: None,
            teacher: None,
            tokens: vec![0],
            responses: vec![objective::Response::new(0..1)],
            pairs: Vec::new(),
            constants: objective::TokenConstants::default(),
        };
        let settings = StepSettings { learning_rate: 1.0, clip_norm: case["max_norm"].as_f64(), lambda: 0.0 };
        let report = Step::new(&*sft).take(&mut policy, &mut (), &[batch], settings).unwrap();
        assert_close(&[report.gradient_norm], &[case["norm"].as_f64().unwrap()], 1e-15, 0.0, "norm");
        assert_close(&policy.applied, &numbers(&case["clipped"]), 1e-15, 0.0, "clipped");
    }
}

#[test]
fn the_lake_is_gymnasiums_and_its_value_that_of_numpy() {
    for case in oracle("environment")["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let map = match case["map"].as_str().unwrap() {
            "desc" => Map::parse("desc", &case["rows"].to_string()).unwrap(),
            name => Map::load(name).unwrap(),
        };
        assert_eq!(serde_json::to_value(map.rows()).unwrap(), case["rows"], "{name}");
        let dynamics = Dynamics {
            slippery: case["slippery"].as_bool().unwrap(),
            success_rate: case["success_rate"].as_f64().unwrap(),
            rewards: rewards(case),
        };
        let environment = Environment::new(map, dynamics);
        assert_eq!(environment.horizon() as u64, case["horizon"].as_u64().unwrap(), "{name}");

        let cells = environment.map().cells().len();
        for (cell, action) in (0..cells).flat_map(|cell| Action::ALL.map(|action| (cell, action))) {
            let theirs = case["transitions"][cell][action as usize].as_array().unwrap();
            let ours = environment.outcomes(cell, action);
            assert_eq!(ours.len(), theirs.len(), "{name}, cell {cell}, {action:?}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours.probability, theirs[0].as_f64().unwrap(), "{name}, cell {cell}, {action:?}");
                assert_eq!(ours.next as u64, theirs[1].as_u64().unwrap(), "{name}, cell {cell}, {action:?}");
                assert_eq!(ours.reward, theirs[2].as_f64().unwrap(), "{name}, cell {cell}, {action:?}");
                assert_eq!(ours.terminated, theirs[3].as_bool().unwrap(), "{name}, cell {cell}, {action:?}");
            }
        }

        let solution = value_iteration(&environment, case["gamma"].as_f64().unwrap());
        // Values of hundreds are known to as many digits as those below 1.
        let value = numbers(&case["value"]);
        let size = value.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        assert!(solution.error_bound <= 1e-11 * size, "{name}: {:e}", solution.error_bound);
        assert_close(&solution.value, &value, 0.0, 1e-12 * size, name);
        let theirs: Vec<f64> = case["action_value"].as_array().unwrap().iter().flat_map(numbers).collect();
        assert_close(solution.action_value.as_flattened(), &theirs, 0.0, 1e-12 * size, name);

        let fares = performance(&environment, &vec![[0.25; 4]; cells]);
        let theirs = ["success_rate_uniform", "return_uniform"].map(|field| case[field].as_f64().unwrap());
        assert_close(&[fares.success_rate, fares.mean_return], &theirs, 1e-12, 1e-15, name);
    }
}

#[test]
fn episodes_are_gymnasiums_step_by_step() {
    for case in oracle("environment")["rollouts"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let map = Map::parse("desc", &case["rows"].to_string()).unwrap();
        let environment = Environment::new(map, Dynamics { rewards: rewards(case), ..Dynamics::from(false) });
        let mut cell = environment.map().start();
        let (actions, steps) = (numbers(&case["actions"]), case["steps"].as_array().unwrap());
        for (step, (action, theirs)) in actions.into_iter().zip(steps).enumerate() {
            let outcome = environment.step(cell, Action::ALL[action as usize], 0.0);
            let truncated = step + 1 >= environment.horizon();
            let ours = serde_json::json!([outcome.next, outcome.reward, outcome.terminated, truncated]);
            assert_eq!(&ours, theirs, "{name}, step {step}");
            cell = outcome.next;
        }
    }
}

fn rewards(case: &Value) -> Rewards {
    let [goal, hole, frozen] = numbers(&case["reward_schedule"])[..] else { panic!("{case}") };
    Rewards { goal, hole, frozen }
}

#[test]
fn forty_steps_on_the_lake_follow_pytorch() {
    let oracle = oracle("training");
    let environment = Environment::new(Map::load("4x4").unwrap(), false);
    let map = environment.map();
    let optimal = optimal_policy(&environment, &value_iteration(&environment, 0.99), Target::Greedy).unwrap();
    let demonstration = trajectory::resolve(map, oracle["demonstration"].as_str().unwrap()).unwrap();
    let hidden = oracle["hidden"].as_u64().unwrap() as usize;
    for case in oracle["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (method, parameters) = named(&case["method"]);
        let objective = registry::build(&method, &parameters).unwrap();
        let inputs = Inputs::new(Encoding::OneHot, map);
        let network = Network::from_parameters(inputs, hidden, numbers(&oracle["initial_parameters"])).unwrap();
        let mut optimizer = Optimizer::new(optimizer(&case["optimizer"]), network.parameters.len());
        let mut policy = LakePolicy::new(map, network);
        let rejected = case["rejected"].as_str().map(|word| trajectory::resolve(map, word).unwrap());
        let requirements = objective.requirements();
        let mut batches = [given(requirements.data, &demonstration, rejected.as_ref())];
        fill_reference(&policy, &requirements, &mut batches).unwrap();

        let lambda = requirements.anticipation.at(1.0, 0.0);
        Step::new(&*objective).accumulate(&mut policy, &batches, lambda).unwrap();
        // In the order in which the network keeps its parameters.
        let theirs = Network::from_parameters(inputs, hidden, numbers(&case["initial_gradient"])).unwrap().parameters;
        assert_close(&policy.network.gradient, &theirs, 1e-11, 1e-15, name);

        let settings = StepSettings { learning_rate: case["learning_rate"].as_f64().unwrap(), clip_norm: None, lambda };
        let mut step = Step::new(&*objective);
        let distance = |policy: &LakePolicy<'_>| {
            measure::distance(&policy.network.transition_matrix(), &optimal, &map.non_terminal())
        };
        for (index, theirs) in numbers(&case["losses"]).into_iter().enumerate() {
            if let Some(theirs) = case["distance"][index.to_string()].as_f64() {
                assert_close(&[distance(&policy)], &[theirs], 1e-9, 0.0, &format!("{name}, distance at {index}"));
            }
            let report = step.take(&mut policy, &mut optimizer, &batches, settings).unwrap();
            assert_close(&[report.loss], &[theirs], 1e-9, 1e-12, &format!("{name}, loss at {index}"));
        }
        assert_close(&[distance(&policy)], &[case["distance"]["40"].as_f64().unwrap()], 1e-9, 0.0, name);
    }
}
