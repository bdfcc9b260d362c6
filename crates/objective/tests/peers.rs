//! The table of peers' losses (PEERS.md) against the registry: what it names here exists and builds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed check is a panic")]

use enumset::EnumSet;
use objective::parameter::Kind;
use objective::registry::GIVEN;
use objective::{Constant, METHODS, Method, Parameter, Parameters, Statistic, Value};

/// Names in the column about this crate that belong to the peers.
const THEIRS: &[&str] = &[
    "KTOTrainer",
    "beta1",
    "beta2",
    "center_rewards_coefficient",
    "clip_ratio_c",
    "discopop_tau",
    "dro_beta",
    "epsilon",
    "epsilon_high",
    "f_alpha_divergence_coef",
    "margin",
    "max_completion_length",
    "norm_adv_by_std_in_grpo",
    "normalize_then_sum",
    "ppo_kl_coef",
    "preference_average_log_probs",
    "ratio_clip_c",
    "ratio_clip_max",
    "ratio_clip_min",
    "sft_loss_weight",
    "simpo_gamma",
    "sum_then_normalize",
    "token_level_loss",
    "tpo-l",
];

/// Position of each row, and the names in backticks in its cell about this crate.
fn cells() -> Vec<(String, Vec<String>)> {
    let table = include_str!("../PEERS.md");
    let rows = table.lines().filter(|line| line.starts_with("| ")).map(|line| line.split('|').collect::<Vec<_>>());
    let cells = rows.filter(|cells| cells[1].trim() != "its name" && !cells[2].trim().starts_with("none"));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    cells.map(|cells| (cells[1].trim().to_owned(), quoted(cells[2]))).collect()
}

fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().chain(GIVEN).find(|method| method.name == name)
}

/// Methods that a cell names or, if it names none, those that have the named parameters.
fn methods(names: &[String]) -> Vec<&'static Method> {
    let own: Vec<_> = names.iter().filter_map(|name| method(name)).collect();
    if own.is_empty() {
        ["policy_gradient", "dpo", "ppo"].iter().filter_map(|name| method(name)).collect()
    } else {
        own
    }
}

fn parameter(methods: &[&Method], name: &str) -> Option<Parameter> {
    methods.iter().flat_map(|method| (method.parameters)()).find(|parameter| parameter.name == name)
}

/// Values of an assignment in a cell: its number or name, or any value for one of the peer's.
fn values(parameter: &Parameter, text: &str) -> Vec<Value> {
    match parameter.kind {
        Kind::Choice { options, .. } => options.iter().filter(|option| **option == text).map(|o| (*o).into()).collect(),
        _ => match text.parse::<f64>() {
            Ok(number) => vec![number.into()],
            Err(_) => [0.5, 1.5, 4.0].map(Value::from).into(),
        },
    }
}

/// Other choices that a parameter may need beside it.
fn company() -> Vec<Vec<(&'static str, Value)>> {
    vec![
        vec![],
        vec![("beta", 0.1.into())],
        vec![("advantage", "given".into())],
        vec![("advantage", "given".into()), ("beta", 0.1.into())],
        vec![("advantage", "gae".into()), ("value_coefficient", 1.0.into())],
        vec![("trust_region", "none".into())],
        vec![("trust_region", "cispo".into())],
        vec![("correction", "truncate_token".into())],
    ]
}

/// Whether one of the methods can be built with these parameters and others that they need.
fn builds(methods: &[&Method], given: &[(String, Value)]) -> bool {
    methods.iter().any(|method| {
        company().into_iter().any(|company| {
            let mut all: Parameters = company.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            all.extend(given.iter().cloned());
            (method.build)(&all).is_ok()
        })
    })
}

#[test]
fn every_name_that_the_table_gives_to_a_loss_of_a_peer_exists_here() {
    let statistics = EnumSet::<Statistic>::all().iter().map(Statistic::name);
    let columns: Vec<_> = statistics.chain(EnumSet::<Constant>::all().iter().map(Constant::name)).collect();
    let mut unknown = Vec::new();
    for (row, names) in cells() {
        let methods = methods(&names);
        let all: Vec<_> = methods.iter().copied().chain(method("policy_gradient")).collect();
        let option = |name: &str| {
            all.iter()
                .flat_map(|method| (method.parameters)())
                .any(|parameter| matches!(parameter.kind, Kind::Choice { options, .. } if options.contains(&name)))
        };
        for name in &names {
            let own = name.split(" = ").next().unwrap_or_default();
            let known = method(own).is_some()
                || parameter(&all, own).is_some()
                || option(own)
                || columns.contains(&own)
                || THEIRS.contains(&own);
            if !known {
                unknown.push(format!("{row}: {name}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_setting_of_the_table_builds() {
    let (mut refused, mut count) = (Vec::new(), 0);
    for (row, names) in cells() {
        let methods = methods(&names);
        let settings: Vec<(Parameter, &str)> = names
            .iter()
            .filter_map(|name| name.split_once(" = "))
            .map(|(name, value)| (parameter(&methods, name).unwrap_or_else(|| panic!("{row}: {name}")), value))
            .collect();
        let given: Vec<Vec<(String, Value)>> = settings
            .iter()
            .map(|(parameter, text)| {
                values(parameter, text).into_iter().map(|value| (parameter.name.to_owned(), value)).collect()
            })
            .collect();
        count += given.len();
        for ((parameter, text), own) in settings.iter().zip(&given) {
            // Beside itself, what the cell says of others.
            let others: Vec<_> = given
                .iter()
                .filter_map(|others| others.first())
                .filter(|(name, _)| name != parameter.name)
                .cloned()
                .collect();
            let alone = own.iter().any(|own| builds(&methods, std::slice::from_ref(own)));
            let together = own.iter().any(|own| builds(&methods, &[&others[..], std::slice::from_ref(own)].concat()));
            if !alone && !together {
                refused.push(format!("{row}: {} = {text}", parameter.name));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(count > 60, "{count}");
}
