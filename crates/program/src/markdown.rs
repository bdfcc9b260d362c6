//! Markdown of doc comments as text for a terminal.

use crate::terminal::{NAME, styled, width, wrapped};

/// Indentation of the text under a heading.
pub(crate) const INDENT: &str = "  ";

/// Splits a document into sections, each a heading and its lines. The heading of the text before the first one is
/// empty.
pub(crate) fn sections(document: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections = vec![("", Vec::new())];
    let mut in_code = false;
    for line in document.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)) {
        in_code ^= line.starts_with("```");
        match (line.strip_prefix("# "), sections.last_mut()) {
            (Some(heading), _) if !in_code => sections.push((heading, Vec::new())),
            (_, Some((_, lines))) => lines.push(line),
            _ => (),
        }
    }
    sections
}

/// Paragraphs, lists, tables and code of a section, indented, within this many columns where words allow.
pub(crate) fn text(lines: &[&str], columns: usize) -> String {
    let mut blocks = Vec::new();
    let mut rest = lines;
    while let Some((line, behind)) = rest.split_first() {
        let taken = match line {
            line if line.trim().is_empty() => {
                rest = behind;
                continue;
            }
            line if line.starts_with("```") => {
                let code = behind.iter().take_while(|line| !line.starts_with("```")).count();
                blocks.push(behind[..code].iter().map(|line| format!("{INDENT}{INDENT}{line}\n")).collect());
                code + 2
            }
            line if line.starts_with('|') => {
                let rows = rest.iter().take_while(|line| line.starts_with('|')).count();
                blocks.push(table(&rest[..rows], columns));
                rows
            }
            line => {
                let is_own = |next: &&&str| !next.is_empty() && !next.starts_with("- ") && !next.starts_with("```");
                let length = 1 + behind.iter().take_while(is_own).count();
                let words = inline(&rest[..length].join(" "));
                let (text, others) = match line.strip_prefix("- ") {
                    Some(_) => (words, "    "),
                    None => (words, INDENT),
                };
                blocks.push(wrapped(&text, columns, INDENT, others) + "\n");
                length
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    join(&blocks)
}

/// Joins blocks with an empty line between them, except between items of a list.
fn join(blocks: &[String]) -> String {
    let is_item = |block: &String| block.trim_start().starts_with("- ");
    let mut joined = String::new();
    for (place, block) in blocks.iter().enumerate() {
        if place > 0 && !(is_item(block) && is_item(&blocks[place - 1])) {
            joined.push('\n');
        }
        joined += block;
    }
    joined
}

/// Formats a table in aligned columns or, if that is too wide, as a list of terms, each with the rest of its row below
/// it.
fn table(lines: &[&str], columns: usize) -> String {
    let is_rule = |cells: &[String]| cells.iter().all(|cell| cell.chars().all(|letter| "-: ".contains(letter)));
    let rows: Vec<Vec<_>> =
        lines.iter().map(|line| line.trim_matches('|').split('|').map(|cell| inline(cell.trim())).collect()).collect();
    let rule = rows.iter().position(|cells: &Vec<String>| is_rule(cells) && !cells.is_empty());
    let rows: Vec<_> =
        rows.into_iter().enumerate().filter(|(place, _)| Some(*place) != rule).map(|(_, row)| row).collect();
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<_> = (0..).map_while(widest).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide - width(cell))));
        format!("{INDENT}{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let aligned: Vec<_> = rows.iter().map(line).collect();
    if aligned.iter().all(|line| width(line.trim_end()) <= columns) {
        return aligned.concat();
    }
    let definition = |row: &Vec<String>| {
        let (term, meaning) =
            row.split_first().map_or((String::new(), String::new()), |(term, rest)| (term.clone(), rest.join("; ")));
        [wrapped(&term, columns, INDENT, INDENT), wrapped(&meaning, columns, "      ", "      ")].join("\n") + "\n"
    };
    rows.iter().skip(1).map(definition).collect()
}

/// Formats a line: links as their texts, code as names, and escapes as their letters.
fn inline(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(place) = rest.find(['\\', '[', '`']) {
        shown += &rest[..place];
        let (mark, behind) = (&rest[place..place + 1], &rest[place + 1..]);
        rest = match mark {
            "\\" => {
                let letter = behind.chars().next().map_or(0, char::len_utf8);
                shown += &behind[..letter];
                &behind[letter..]
            }
            "`" => match behind.split_once('`') {
                Some((code, behind)) => {
                    shown += &styled(NAME, code);
                    behind
                }
                None => {
                    shown += mark;
                    behind
                }
            },
            _ => match link(behind) {
                Some((label, behind)) => {
                    shown += &inline(label);
                    behind
                }
                None => {
                    shown += mark;
                    behind
                }
            },
        };
    }
    shown + rest
}

/// Splits the text after the opening bracket of a link into the link's label and the text after the link.
fn link(text: &str) -> Option<(&str, &str)> {
    let (label, behind) = text.split_once(']')?;
    match behind.strip_prefix('(') {
        Some(target) => Some((label, target.split_once(')')?.1)),
        None => label.starts_with('`').then_some((label, behind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        let mut shown = text.to_owned();
        for style in [format!("{NAME}"), format!("{NAME:#}")] {
            shown = shown.replace(&style, "");
        }
        shown
    }

    #[test]
    fn links_are_their_texts_and_escapes_are_letters() {
        for (given, expected) in [
            ("as [`Dpo`](crate::Dpo) and [`Ipo`], [here](x.md)", "as Dpo and Ipo, here"),
            (r"E\[R\] with `a = b`", "E[R] with a = b"),
            ("λ in [0, 1], and ` alone", "λ in [0, 1], and ` alone"),
        ] {
            assert_eq!(plain(&inline(given)), expected);
        }
    }

    #[test]
    fn sections_begin_at_headings_and_not_at_comments_in_code() {
        let document = " Idea.\n\n # Formula\n\n L = 1\n ```\n # hidden\n ```\n";
        let sections = sections(document);
        assert_eq!(sections.iter().map(|(heading, _)| *heading).collect::<Vec<_>>(), ["", "Formula"]);
        assert_eq!(text(&sections[1].1, 80), "  L = 1\n\n    # hidden\n");
    }

    #[test]
    fn paragraphs_lists_and_tables_fit_the_columns() {
        let lines = ["One two", "three.", "", "- first", "- second", "", "| a | b |", "|---|---|", "| x | y z |"];
        let shown = text(&lines, 12);
        assert_eq!(shown, "  One two\n  three.\n\n  - first\n  - second\n\n  a  b\n  x  y z\n");
        let narrow = text(&["| a | b |", "|---|---|", "| name | one two three |"], 14);
        assert_eq!(narrow, "  name\n      one two\n      three\n");
    }
}
