//! The documentation: links have targets, commands run unchanged, programs compile.

use std::path::{Path, PathBuf};
use std::process::Command;

use escargot::CargoBuild;
use tests::command::{program, root};

/// The marks of commands that no test here runs, with what they need.
const MARKS: [(&str, &str); 6] = [
    ("libtorch", "libtorch, and mostly a language model; the tests of `lm` run every one of its commands"),
    ("gpu", "GPUs"),
    ("cluster", "a scheduler"),
    ("long", "minutes, or other Python packages"),
    ("gate", "nothing: `.ci/run` runs the command or checks its result"),
    ("nightly", "a nightly compiler"),
];

/// A fenced block of a page.
struct Block {
    language: String,
    mark: Option<String>,
    text: String,
}

/// The files with this extension in a folder and the folders in it.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| match path.extension() {
        _ if path.is_dir() => files(&path, extension),
        Some(own) if own == extension => vec![path],
        _ => Vec::new(),
    });
    found.collect()
}

/// The chapters of the book.
fn chapters() -> Vec<PathBuf> {
    files(&root().join("docs/src"), "md")
}

/// All pages whose links and commands are checked.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    pages.extend(chapters());
    pages.extend(files(&root().join("experiments"), "md"));
    pages
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// A page with the files that it includes.
fn expanded(page: &Path) -> String {
    let mut text = String::new();
    for line in read(page).lines() {
        if let Some(include) = line.strip_prefix("{{#include ") {
            let (file, anchor) = include.trim_end_matches('}').split_once(".md").unwrap();
            let included = read(&page.parent().unwrap().join(format!("{file}.md")));
            let part = match anchor.strip_prefix(':') {
                Some(name) => {
                    let [start, end] = ["ANCHOR", "ANCHOR_END"].map(|mark| format!("<!-- {mark}: {name} -->"));
                    let part = included.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
                    part.unwrap_or_else(|| panic!("{} lacks {start} or {end}", page.display())).0.to_owned()
                }
                None => included,
            };
            text += &part;
        } else {
            text += line;
        }
        text.push('\n');
    }
    text
}

/// The prose of a page, line by line, and its blocks.
fn parts(text: &str) -> (Vec<String>, Vec<Block>) {
    let (mut prose, mut blocks, mut lines) = (Vec::new(), Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            prose.push(line.to_owned());
            continue;
        };
        let inside: Vec<_> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        let mut words = info.split([' ', ',']).map(str::to_owned);
        let language = words.next().unwrap_or_default();
        blocks.push(Block { language, mark: words.next(), text: inside.join("\n") + "\n" });
    }
    (prose, blocks)
}

/// The anchor of a heading, as GitHub and mdBook form it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Targets of the links and images in a line, except in inline code.
fn targets(line: &str) -> Vec<String> {
    let plain: String = line.split('`').step_by(2).collect();
    plain.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let book = root().join("docs/src");
    let mut checked = 0;
    for page in pages() {
        for target in parts(&expanded(&page)).0.iter().flat_map(|line| targets(line)) {
            if target.contains("://") {
                continue;
            }
            checked += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let (page, is_page) = (page.display(), path.extension().is_some_and(|extension| extension == "md"));
            assert!(path.exists(), "{page}: {target} leads to no file");
            if !heading.is_empty() {
                let text = expanded(&path);
                let mut headings = parts(&text).0.into_iter().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{page}: {target} leads to no heading");
            }
            // mdBook makes .html of every .md, which only chapters have.
            let in_book = path.canonicalize().unwrap().starts_with(book.canonicalize().unwrap());
            assert!(
                !is_page || in_book || !page.to_string().contains("/docs/src/"),
                "{page}: {target} is no chapter: link to its folder"
            );
        }
    }
    assert!(checked > 80, "only {checked} links were found");
}

#[test]
fn every_chapter_is_in_the_books_summary() {
    let summary = root().join("docs/src/SUMMARY.md");
    let listed: Vec<_> = read(&summary).lines().flat_map(targets).collect();
    for chapter in chapters().into_iter().filter(|chapter| *chapter != summary) {
        let name = chapter.file_name().unwrap().to_str().unwrap();
        assert!(listed.iter().any(|target| target == name), "SUMMARY.md lacks {name}");
    }
}

#[test]
fn the_readme_has_at_most_seven_thousand_bytes() {
    let bytes = read(&root().join("README.md")).len();
    assert!(bytes <= 7000, "README.md has {bytes} bytes");
}

#[test]
fn every_rust_program_of_the_docs_stands_in_the_crate_where_it_compiles() {
    let trimmed = |text: &str| {
        let lines = text.lines().map(|line| line.trim().trim_start_matches("//!").trim());
        lines.collect::<Vec<_>>().join("\n")
    };
    let sources: Vec<_> =
        files(&root().join("crates/objective/src"), "rs").iter().map(|file| trimmed(&read(file))).collect();
    let mut checked = 0;
    for page in chapters().into_iter().chain([root().join("README.md")]) {
        for block in parts(&read(&page)).1.into_iter().filter(|block| block.language == "rust") {
            checked += 1;
            let program = trimmed(&block.text);
            assert!(
                sources.iter().any(|source| source.contains(&program)),
                "{}: no source of the crate has\n{program}",
                page.display()
            );
        }
    }
    assert!(checked >= 3, "only {checked} programs were found");
}

#[test]
fn the_books_overview_of_losses_has_every_method() {
    let (methods, overview) = ("crates/objective/METHODS.md", read(&root().join("docs/src/losses.md")));
    let table = read(&root().join(methods));
    let names: Vec<_> = table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        assert!(overview.contains(&format!("`{name}`")), "docs/src/losses.md lacks {name}");
    }
}

/// The blocks of a page whose commands must run or be marked. Another test (`contributing.rs`) follows the recipe in
/// CONTRIBUTING.
fn commands(page: &Path) -> Vec<Block> {
    let text = read(page);
    parts(text.split("<!-- ANCHOR: objective -->").next().unwrap()).1
}

#[test]
fn every_block_of_commands_runs_in_a_test_or_says_what_it_needs() {
    for page in pages() {
        for Block { language, mark, text } in commands(&page) {
            let page = page.display();
            assert!(
                !["", "bash", "console", "shell"].contains(&language.as_str()),
                "{page}: {language:?}: use sh\n{text}"
            );
            assert!(
                !text.starts_with("$ ") && (language == "sh" || !text.starts_with("cargo ")),
                "{page}: use sh\n{text}"
            );
            let known = mark.as_ref().is_none_or(|mark| MARKS.iter().any(|(name, _)| name == mark));
            assert!(language != "sh" || known, "{page}: {mark:?} is none of {MARKS:?}");
        }
    }
}

/// Definition of `cargo` for a shell that runs the commands of a page with compiled programs. `.ci/run` runs `cargo
/// test`.
const CARGO: &str = r#"
cargo() {
  case "$*" in
    "run -p lake -- "*) shift 4; "$LAKE" "$@" ;;
    "run -q -p objective --example evaluate") "$EVALUATE" ;;
    "run -q -p objective --example ndarray") "$NDARRAY" ;;
    test) ;;
    *) echo "no test runs cargo $*; mark the block with what it needs" >&2; return 1 ;;
  esac
}
"#;

#[test]
fn every_command_without_a_mark_prints_what_the_docs_say() {
    let example = |name| CargoBuild::new().package("objective").example(name).run().unwrap().path().to_owned();
    let [evaluate, ndarray] = ["evaluate", "ndarray"].map(example);
    let mut ran = 0;
    for page in pages() {
        // The commands of a page run one after another in a folder that has what they read.
        let folder = tempfile::tempdir().unwrap();
        for shared in ["experiments", "envs"] {
            std::os::unix::fs::symlink(root().join(shared), folder.path().join(shared)).unwrap();
        }
        let mut printed = None;
        for Block { language, mark, text } in commands(&page) {
            match (language.as_str(), mark, printed.take()) {
                ("sh", None, _) => {
                    let output = Command::new("sh")
                        .args(["-e", "-c", &format!("{CARGO}{text}")])
                        .current_dir(folder.path())
                        .env("LAKE", program().get_program())
                        .envs([("EVALUATE", &evaluate), ("NDARRAY", &ndarray)])
                        .output()
                        .unwrap();
                    let errors = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{}:\n{text}{errors}", page.display());
                    ran += 1;
                    printed = Some(String::from_utf8(output.stdout).unwrap());
                }
                ("text", _, Some(printed)) => {
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        assert!(printed.contains(line), "{}: not printed: {line}\n{printed}", page.display());
                    }
                }
                // A program or a recipe may stand between a command and what it prints.
                (_, _, before) => printed = before.filter(|_| language != "sh"),
            }
        }
    }
    assert!(ran >= 20, "only {ran} blocks were run");
}
