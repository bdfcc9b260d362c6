//! The recipe of CONTRIBUTING for a new objective, followed to the letter in a copy of the workspace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::command::root;

/// Folders that the page does not mention and the copy does not need.
const LEFT_OUT: [&str; 4] = ["target", ".git", ".cargo", "plots"];

/// A step of CONTRIBUTING's instructions.
#[derive(Debug)]
enum Step {
    /// A new file with this content.
    Write(PathBuf, String),
    /// Lines to find in a file, and their replacement.
    Change(PathBuf, String, String),
    /// Commands to run.
    Run(String),
}

/// The steps under a heading of the page: its blocks, each of the file that the text before it names last.
fn steps(page: &str, heading: &str) -> Vec<Step> {
    let section = page.split_once(heading).unwrap().1.split("\n## ").next().unwrap();
    let (mut steps, mut file, mut lines) = (Vec::new(), None, section.lines());
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            let quoted = line.split('`').skip(1).step_by(2);
            file = quoted.filter(|name| name.contains('/')).map(PathBuf::from).last().or(file);
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim() != "```");
        let block: Vec<_> = inside.map(|line| line.get(indent..).unwrap_or_default()).collect();
        let of = |marks: [char; 2]| {
            let own = block.iter().filter(|line| line.starts_with(marks));
            own.map(|line| format!("{}\n", &line[1..])).collect::<String>()
        };
        let file = || file.clone().unwrap_or_else(|| panic!("no file is named before {block:?}"));
        steps.push(match language {
            "rust" => Step::Write(file(), block.join("\n") + "\n"),
            "diff" => Step::Change(file(), of([' ', '-']), of([' ', '+'])),
            "sh" => Step::Run(block.join("\n")),
            other => panic!("a block of {other}, which no step has"),
        });
    }
    steps
}

/// Makes `to` equal to `from`. Equal files are not touched, so that what was compiled from them stays valid.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let names = |folder: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| !LEFT_OUT.map(OsStr::new).contains(&name.as_os_str())).collect()
    };
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            let content = std::fs::read(&from).unwrap();
            if std::fs::read(&to).ok().as_ref() != Some(&content) {
                std::fs::write(&to, content).unwrap();
            }
        }
    }
    for name in names(to).into_iter().filter(|name| !from.join(name).exists()) {
        let extra = to.join(name);
        let removed = if extra.is_dir() { std::fs::remove_dir_all(extra) } else { std::fs::remove_file(extra) };
        removed.unwrap();
    }
}

/// Cargo's settings in the copy. Libraries come from the folder where this very test was compiled. Programs go
/// elsewhere, and the copy's packages have a profile of their own: cargo names what it compiles by profile and by paths
/// within the workspace, so they would otherwise take the place of this workspace's.
fn settings(scratch: &Path) -> String {
    let compiled = scratch.parent().unwrap();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let packages = manifest["workspace"]["members"].as_array().unwrap().iter().map(|member| {
        let name = member.as_str().unwrap().rsplit('/').next().unwrap();
        format!("{name} = {{ opt-level = 0, debug = false, incremental = false }}\n")
    });
    let packages: String = packages.collect();
    format!(
        "[net]\noffline = true\n[build]\nbuild-dir = {compiled:?}\ntarget-dir = {:?}\n[profile.dev.package]\n{packages}",
        scratch.join("contributing-target")
    )
}

#[test]
fn the_recipe_for_a_new_objective_works_to_the_letter() {
    let page = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let steps = steps(&page, "\n## Add an objective\n");
    assert!(steps.len() >= 8, "{steps:?}");

    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let workspace = scratch.join("contributing");
    let kept = scratch.join("contributing-as-it-was");
    copy(&root(), &kept);
    // What the steps write is as new as the last run wrote it, so that a second run compiles nothing.
    for step in &steps {
        match step {
            Step::Write(file, content) => {
                assert!(!kept.join(file).exists(), "{} is no new file", file.display());
                std::fs::write(kept.join(file), content).unwrap();
            }
            Step::Change(file, before, after) => {
                let text = std::fs::read_to_string(kept.join(file)).unwrap();
                let found = text.matches(before.as_str()).count();
                assert_eq!(found, 1, "{} has these lines {found} times:\n{before}", file.display());
                std::fs::write(kept.join(file), text.replace(before.as_str(), after)).unwrap();
            }
            Step::Run(_) => {}
        }
    }
    let methods = Path::new("crates/objective/METHODS.md");
    let table = std::fs::read(workspace.join(methods)).ok();
    copy(&kept, &workspace);
    std::fs::create_dir_all(workspace.join(".cargo")).unwrap();
    std::fs::write(workspace.join(".cargo/config.toml"), settings(scratch)).unwrap();
    if let Some(table) = table {
        std::fs::write(workspace.join(methods), table).unwrap();
    }
    for step in &steps {
        let Step::Run(commands) = step else { continue };
        for command in commands.lines() {
            let output = Command::new("bash")
                .args(["-c", command])
                .current_dir(&workspace)
                .env_remove("CARGO_TARGET_DIR")
                .env("PROPTEST_CASES", "64")
                .output()
                .unwrap();
            let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{command}\n{said}\n{errors}");
            if command.contains("squared_hinge") {
                assert!(said.contains("squared_hinge") && said.contains("... ok"), "{command} tested nothing:\n{said}");
            }
        }
    }
    let table = std::fs::read_to_string(workspace.join(methods)).unwrap();
    assert!(table.contains("squared_hinge"), "{table}");
}
