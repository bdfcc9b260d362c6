//! Running of the program as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use escargot::{CargoBuild, CargoRun};
use serde_json::Value;

static LAKE: LazyLock<CargoRun> = LazyLock::new(|| CargoBuild::new().package("lake").bin("lake").run().unwrap());

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The recipes that come with the project; studies lie beside them.
pub fn recipes() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("experiments")).unwrap().map(|entry| entry.unwrap().path());
    let is_recipe = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "toml")
            && !std::fs::read_to_string(path).unwrap().contains("\n[factor]\n")
    };
    files.filter(is_recipe).collect()
}

/// The program, built once, to be run in the workspace's folder.
pub fn program() -> Command {
    let mut command = LAKE.command();
    command.current_dir(root());
    command
}

/// Output of the program with these arguments.
fn lake(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// Standard output of the program, which must end with exit code 0.
pub fn succeeds(arguments: &[&str]) -> String {
    let output = lake(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code 2, nothing on standard output, and an error that contains each of the given texts.
pub fn fails(arguments: &[&str], expected: &[&str]) {
    let output = lake(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(!error.contains("panicked"), "{error}");
    for text in expected {
        assert!(error.contains(text), "{arguments:?}\n  {error}\n  lacks {text}");
    }
}

/// JSON output of the program with `--json`.
pub fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[arguments, &["--json"]].concat())).unwrap()
}
