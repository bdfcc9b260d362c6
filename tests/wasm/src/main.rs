//! Checks that a wasm build of the library answers in Node what the library answers here, to 10⁻⁹.
//!
//! `wasm MODULE.wasm` makes the module's bindings, runs it in Node, and compares every number of both answers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use wasm_bindgen_cli_support::Bindgen;

const LINE: &str = r#"{"objective": {"name": "dpo", "beta": 0.1},
    "chosen": {"log_prob": [[-1.2, -0.3], [-0.5]], "reference_log_prob": [[-1.0, -0.4], [-0.7]]},
    "rejected": {"log_prob": [[-2.0], [-0.9, -0.1]], "reference_log_prob": [[-1.5], [-1.0, -0.2]]}}"#;
const RECIPE: &str = "steps = 100\nseeds = 4\nmethod = [{name = \"ift\"}, {name = \"dpo\"}, {name = \"grpo\"}]\n";

fn main() -> anyhow::Result<()> {
    let module = std::env::args().nth(1).context("expected the path of a wasm module")?;
    let folder = tempfile::tempdir()?;
    Bindgen::new().input_path(&module).nodejs(true)?.out_name("module").generate(folder.path())?;
    for (function, argument, here) in [("evaluate", LINE, wasm::evaluate(LINE)), ("run", RECIPE, wasm::run(RECIPE))] {
        let there = node(folder.path(), function, argument)?;
        let parse = |text: &str| serde_json::from_str::<Value>(text).with_context(|| format!("{function}: {text}"));
        let mut numbers = 0;
        compare(&parse(&here)?, &parse(&there)?, function, &mut numbers)?;
        println!("{function}: {numbers} numbers agree");
    }
    Ok(())
}

fn node(folder: &Path, function: &str, argument: &str) -> anyhow::Result<String> {
    let script = format!("process.stdout.write(require('./module.js').{function}(process.argv[1]))");
    let output = Command::new("node").current_dir(folder).args(["-e", &script, argument]).output().context("node")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn compare(here: &Value, there: &Value, place: &str, numbers: &mut usize) -> anyhow::Result<()> {
    match (here, there) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            ensure!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{place}: {a:e} here, {b:e} in Node");
            *numbers += 1;
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(a, b, &format!("{place}[{index}]"), numbers)?;
            }
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, a) in a {
                compare(a, &b[key], &format!("{place}.{key}"), numbers)?;
            }
        }
        (a, b) if a == b => {}
        (a, b) => bail!("{place}: {a} here, {b} in Node"),
    }
    Ok(())
}
