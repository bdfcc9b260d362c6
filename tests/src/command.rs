//! Running of the program as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex};

use escargot::CargoBuild;
use serde_json::Value;

static FULL: LazyLock<PathBuf> = LazyLock::new(|| build("full", "full"));
static DEFAULT: LazyLock<PathBuf> = LazyLock::new(|| build("default", ""));

/// Builds the program with these features. The result has a name of its own, as the next build replaces cargo's.
fn build(name: &str, features: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let built = CargoBuild::new().package("lake").bin("lake").features(features).run().unwrap();
    let own = built.path().with_file_name(format!("lake-{name}"));
    if own.exists() {
        std::fs::remove_file(&own).unwrap();
    }
    std::fs::hard_link(built.path(), &own).unwrap();
    own
}

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

/// The program with every feature, built once, to be run in the workspace's folder.
pub fn program() -> Command {
    let mut command = Command::new(&*FULL);
    command.current_dir(root());
    command
}

/// The program with its default features, built once, to be run in the workspace's folder.
pub fn default_program() -> Command {
    let mut command = Command::new(&*DEFAULT);
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
