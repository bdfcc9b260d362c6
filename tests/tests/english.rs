//! Mechanical rules of the project's English: doc comments that stand alone, and lines of prose to 120 columns.

use std::path::{Path, PathBuf};

use tests::command::root;

/// Maximum number of columns of a line of prose.
const COLUMNS: usize = 120;
/// Words that begin a clause without a verb of its own, such as "What is read." or "Of the step."
const FRAGMENTS: [&str; 6] = ["Of", "What", "When", "Who", "Whose", "Why"];
/// Folders without prose: build outputs, and results that programs wrote.
const SKIPPED: [&str; 5] = ["target", "book", "plots", "node_modules", ".git"];

/// The files with one of these extensions in a folder and the folders in it.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let is_skipped = |path: &Path| path.file_name().is_some_and(|name| SKIPPED.iter().any(|skipped| name == *skipped));
    let found = entries.into_iter().filter(|path| !path.is_symlink()).flat_map(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_owned();
        match () {
            () if is_skipped(&path) => Vec::new(),
            () if path.is_dir() => files(&path, extensions),
            () if extensions.contains(&extension.as_str()) => vec![path],
            () => Vec::new(),
        }
    });
    found.collect()
}

/// The line without its indentation and this marker of a comment, if it has one of them.
fn comment<'a>(line: &'a str, markers: &[&str]) -> Option<&'a str> {
    let line = line.trim_start();
    let rest = markers.iter().find_map(|marker| line.strip_prefix(marker))?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// The doc comments of a source: the line on which each begins, from 1, and its first paragraph.
fn doc_comments(source: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    let mut is_inside = false;
    for (number, line) in (1..).zip(source.lines()) {
        match comment(line, &["///", "//!"]) {
            Some(text) if !is_inside => {
                found.push((number, text.to_owned()));
                (is_inside, is_open) = (true, true);
            }
            Some(text) if is_open && !text.is_empty() && !text.starts_with(['|', '#', '`']) => {
                let (_, paragraph) = found.last_mut().unwrap();
                *paragraph += " ";
                *paragraph += text;
            }
            Some(_) => is_open = false,
            None => is_inside = false,
        }
    }
    found
}

/// The rule that the first paragraph of a doc comment breaks, if any.
fn broken_rule(paragraph: &str) -> Option<&'static str> {
    let word = paragraph.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    let is_word = |word: &str| word.chars().count() >= 3 && word.chars().all(|c| c.is_ascii_alphabetic());
    let is_formula = !paragraph.is_empty() && !paragraph.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word);
    // A comma may end a subordinate clause, and a question mark a question.
    let is_clause = FRAGMENTS.contains(&word) && (!paragraph.contains(',') || ["What", "Who", "Whose"].contains(&word));
    match () {
        () if is_formula => Some("a symbol or a formula without words"),
        () if is_clause && !paragraph.ends_with('?') => Some("a fragment that begins with a question word or \"Of\""),
        () => None,
    }
}

/// The numbers, from 1, of lines of prose with more than [`COLUMNS`] columns. Tables, links and code are excepted.
fn long_lines(path: &Path, text: &str) -> Vec<usize> {
    let mut is_code = false;
    let long = (1..).zip(text.lines()).filter(|(_, line)| {
        let prose = match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => Some(*line),
            Some("rs") => comment(line, &["///", "//!", "//"]),
            _ => comment(line, &["#"]),
        };
        let Some(prose) = prose else { return false };
        if prose.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let is_table = prose.trim_start().starts_with(['|', '>']);
        let is_link = prose.contains("](") || prose.contains("://");
        let is_excepted = is_table || is_link || is_code || prose.starts_with("#!");
        line.chars().count() > COLUMNS && !is_excepted
    });
    long.map(|(number, _)| number).collect()
}

#[test]
fn every_doc_comment_has_words_and_is_no_bare_question_clause() {
    let (mut checked, mut broken) = (0, Vec::new());
    for path in files(&root(), &["rs"]) {
        for (number, paragraph) in doc_comments(&std::fs::read_to_string(&path).unwrap()) {
            checked += 1;
            if let Some(rule) = broken_rule(&paragraph) {
                let name = path.strip_prefix(root()).unwrap().display();
                broken.push(format!("{name}:{number}: {rule}: {paragraph}"));
            }
        }
    }
    assert!(checked > 4000, "only {checked} doc comments were found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn lines_of_prose_have_at_most_120_columns() {
    let (mut checked, mut long) = (0, Vec::new());
    for path in files(&root(), &["rs", "md", "py", "sh", "toml"]) {
        checked += 1;
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        long.extend(long_lines(&path, &text).into_iter().map(|number| format!("{name}:{number}")));
    }
    assert!(checked > 300, "only {checked} files were found");
    assert!(long.is_empty(), "more than {COLUMNS} columns:\n{}", long.join("\n"));
}

#[test]
fn fragments_and_formulas_are_found_and_sentences_are_not() {
    for broken in ["ε.", "1 − ε.", "Of what.", "When.", "What is read.", "What is read, and when.", "Who reads it."]
    {
        assert!(broken_rule(broken).is_some(), "{broken}");
    }
    for sound in ["Queries.", "Number ε added to the root.", "When a step fails, the state is unchanged.", "Log-odds."]
    {
        assert_eq!(broken_rule(sound), None, "{sound}");
    }
}
