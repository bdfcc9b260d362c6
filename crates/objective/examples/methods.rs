//! Prints the table of methods that the crate's documentation shows:
//! `cargo run -p objective --example methods > crates/objective/METHODS.md`.

use objective::{Constant, METHODS, Method, Parameter, Parameters, Source, Statistic};

fn main() -> anyhow::Result<()> {
    println!("| name | loss | learns from | reads | parameters: default, range | source |");
    println!("|---|---|---|---|---|---|");
    for method in METHODS {
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
    let parameters: Vec<_> = parameters().iter().map(described).collect();
    Ok(format!(
        "| `{name}` | {summary} | {data}{sampled} | {} | {} | {source} |",
        reads.join(", "),
        parameters.join("<br>")
    ))
}

/// `beta` = 0.1, a number, 1e-9 <= beta <= 1e6.
fn described(parameter: &Parameter) -> String {
    let allowed = parameter.allowed().replace('<', "&lt;");
    format!("`{}` = {}: {allowed}", parameter.name, parameter.default())
}
