//! Functions that a page or a Node program calls: one evaluation, and one run of a lake.

use lake::experiment::Experiment;
use lake::recipe::{Overrides, Recipe};
use wasm_bindgen::prelude::wasm_bindgen;

#[path = "../../../crates/objective/examples/evaluate/protocol.rs"]
mod protocol;

/// The answer to a line of the `evaluate` protocol.
#[wasm_bindgen]
pub fn evaluate(line: &str) -> String {
    protocol::answer(line.as_bytes()).unwrap_or_else(|error| error.to_string())
}

/// The report of a recipe, given as TOML, as JSON; or why there is none.
#[wasm_bindgen]
pub fn run(recipe: &str) -> String {
    report(recipe).unwrap_or_else(|error| format!("{error:#}"))
}

fn report(recipe: &str) -> anyhow::Result<String> {
    let overrides = Overrides { fields: recipe.parse()?, ..Overrides::default() };
    let report = Experiment::new(Recipe::resolve(None, &overrides)?)?.run(|| ())?;
    Ok(serde_json::to_string(&report)?)
}
