//! Collects the documentation of every method from the comments of `objective`, for Python's docstrings.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let sources = Path::new("../objective/src");
    println!("cargo:rerun-if-changed={}", sources.display());
    let mut files = Vec::new();
    rust_files(sources, &mut files)?;
    let mut table = String::from("&[\n");
    for file in files {
        for (name, documentation) in documented(&fs::read_to_string(file)?) {
            let _ = writeln!(table, "    ({name:?}, {documentation:?}),");
        }
    }
    table.push_str("]\n");
    let folder = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(PathBuf::from(folder).join("documentation.rs"), table)
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// The names of the methods that a file declares, each with the comment above its declaration.
fn documented(source: &str) -> Vec<(String, String)> {
    let (mut found, mut comment, mut presets) = (Vec::new(), Vec::new(), false);
    for line in source.lines() {
        let code = line.trim();
        presets |= code == "presets! {";
        presets &= line != "}";
        if let Some(text) = code.strip_prefix("///") {
            comment.push(text.strip_prefix(' ').unwrap_or(text).to_owned());
        } else if !code.starts_with("#[") {
            // `pub struct Dpo = "dpo", "summary", ...` or, in the table of presets, `grpo, "summary", ...`.
            let name = match code.strip_prefix("pub struct ").and_then(|rest| rest.split_once(" = \"")) {
                Some((_, rest)) => rest.split('"').next(),
                None if presets => code.split_once(", \"").map(|(name, _)| name),
                None => None,
            };
            if let Some(name) = name.filter(|_| !comment.is_empty()) {
                found.push((name.to_owned(), plain(&comment)));
            }
            comment.clear();
        }
    }
    found
}

/// A comment as the text of a docstring: without examples in Rust, and without links to Rust's items.
fn plain(comment: &[String]) -> String {
    let (mut text, mut skipped) = (String::new(), false);
    for line in comment {
        if let Some(heading) = line.strip_prefix("# ") {
            skipped = heading == "Examples";
            if !skipped {
                let _ = writeln!(text, "{heading}\n{}", "-".repeat(heading.chars().count()));
            }
        } else if !skipped {
            text.push_str(&unlinked(line));
            text.push('\n');
        }
    }
    text.trim().to_owned()
}

/// A line whose links [`text`](target) and [`text`] are their text.
fn unlinked(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once("[`") {
        text.push_str(before);
        let Some((label, after)) = link.split_once("`]") else { break };
        text.push('`');
        text.push_str(label);
        text.push('`');
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    text.push_str(rest);
    text
}
