//! Documentation of methods as Python shows it.

use std::fmt::Write as _;

/// The text of a docstring: headings are underlined, and neither examples in Rust nor links to Rust's items are left.
pub(crate) fn docstring(documentation: &str) -> String {
    let (mut text, mut skipped) = (String::new(), false);
    for line in documentation.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)) {
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

/// Replaces the links [`text`](target) and [`text`] of a line by their texts.
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
