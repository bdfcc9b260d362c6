//! Prints the table of methods that the crate's documentation shows:
//! `cargo run -p objective --example methods > crates/objective/METHODS.md`.

use objective::registry::GIVEN;
use objective::{Constant, METHODS, Method, Parameter, Parameters, Source, Statistic};

fn main() -> anyhow::Result<()> {
    println!("| name | loss | learns from | reads | parameters: default, range | source |");
    println!("|---|---|---|---|---|---|");
    for method in METHODS.iter().chain(GIVEN) {
        println!("{}", row(method)?);
    }
    Ok(())
}

fn row(Method { name, summary, source, parameters, build }: &Method) -> anyhow::Result<String> {
    let requirements = build(&Parameters::new())?.requirements();
    let data: &str = requirements.data.into();
    let sampled = if requirements.source == Source::Given { "" } else { ", sampled from the policy" };
    let statistics = requirements.statistics.iter().map(Statistic::name);
    let reads: Vec<_> = statistics.chain(requirements.constants.iter().map(Constant::name)).collect();
    let parameters = match of_the_whole(name, &parameters()) {
        Some(others) => format!("those of `policy_gradient`, by default {others}"),
        None => parameters().iter().map(described).collect::<Vec<_>>().join("<br>"),
    };
    Ok(format!("| `{name}` | {summary} | {data}{sampled} | {} | {parameters} | {source} |", reads.join(", ")))
}

/// Defaults of a preset that differ from those of `policy_gradient`.
fn of_the_whole(name: &str, parameters: &[Parameter]) -> Option<String> {
    let whole = METHODS.iter().find(|method| method.name == "policy_gradient")?;
    let all = (whole.parameters)();
    let same = all.iter().map(|parameter| parameter.name).eq(parameters.iter().map(|parameter| parameter.name));
    if name == whole.name || !same {
        return None;
    }
    let differ = parameters.iter().zip(&all).filter(|(own, other)| own.default() != other.default());
    let differ: Vec<_> = differ.map(|(own, _)| format!("`{}` = {}", own.name, own.default())).collect();
    Some(if differ.is_empty() { "the same".to_owned() } else { differ.join(", ") })
}

/// Formats a parameter, such as "`beta` = 0.1, a number, 1e-9 <= beta <= 1e6".
fn described(parameter: &Parameter) -> String {
    let allowed = parameter.allowed().replace('<', "&lt;");
    format!("`{}` = {}: {allowed}", parameter.name, parameter.default())
}
