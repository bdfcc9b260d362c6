//! A language model on the lake: `experiments/lm_lake/run.sh` on a tiny random model.

use std::path::Path;
use std::process::Command;

use escargot::CargoBuild;
use serde_json::Value;

#[track_caller]
fn runs(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_method_trains_on_the_lakes_trajectories_and_is_measured_beside_the_lakes_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let experiment = root.join("experiments/lm_lake");
    let folder = tempfile::tempdir().unwrap();
    let [model, out] = ["model", "out"].map(|name| folder.path().join(name));
    let lake = CargoBuild::new().package("lake").bin("lake").run().unwrap();
    runs(Command::new("python3").arg(experiment.join("tiny.py")).arg(&model));
    let mut walk = Command::new(experiment.join("run.sh"));
    walk.env("LAKE", lake.path()).env("LM", env!("CARGO_BIN_EXE_lm")).env("STATE", "map");
    runs(walk.arg(&model).arg(&out).args(["2", "3"]));

    let result = |file: &str| -> Value { serde_json::from_slice(&std::fs::read(out.join(file)).unwrap()).unwrap() };
    let rows = result("lm-result.json")["results"].as_array().unwrap().clone();
    let distance = |method: &str| {
        let row = rows.iter().find(|row| row["method"] == method).unwrap();
        row["distance"]["per_seed"].as_array().unwrap().clone()
    };
    let untrained = distance("base");
    for method in ["sft", "ift", "orpo", "dpo"] {
        let runs = distance(method);
        assert_eq!(runs.len(), 2, "{method}");
        // A few steps towards the demonstration must change the model's results.
        assert!(runs.iter().all(|run| *run != untrained[0]), "{method}: {runs:?}, {untrained:?}");
    }
    // One line of the table for each method, in the lake's order.
    let table = std::fs::read_to_string(out.join("table.md")).unwrap();
    let listed: Vec<_> = table.lines().skip(2).take(4).map(|line| line.split('|').nth(1).unwrap().trim()).collect();
    let lake = result("lake-result.json")["results"].as_array().unwrap().clone();
    let order: Vec<_> = lake.iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(listed, order);
    assert!(table.contains("Of 6 pairs of methods"), "{table}");
}
