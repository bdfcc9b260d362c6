//! A terminal's width, and styled text that is plain where the output is no terminal.

use std::io::Write;

use anstyle::Style;
use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// Number of columns if the output is not a terminal.
pub const COLUMNS: usize = 120;
/// Maximum number of columns of prose, on wider terminals too.
pub const PROSE: usize = 100;
/// Style of headings.
pub const HEADING: Style = Style::new().bold().underline();
/// Style of names that a user may type.
pub const NAME: Style = Style::new().bold();
/// Style of details.
pub const DETAIL: Style = Style::new().dimmed();

/// Number of columns of the output: the environment variable `COLUMNS` if it is set, else the terminal's width, else
/// the constant [`COLUMNS`].
pub fn columns() -> usize {
    let variable = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
    let terminal = || terminal_size_of(std::io::stdout()).map(|(Width(columns), _)| usize::from(columns));
    variable.or_else(terminal).unwrap_or(COLUMNS)
}

/// Prints a text, without its styles where the output shows none.
///
/// # Errors
///
/// Those of the output.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut output = anstream::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// The text in a style.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Wraps a text between words. The first line and all other lines have separate indentations; styles take no columns.
pub fn wrapped(text: &str, columns: usize, first: &str, others: &str) -> String {
    let options = Options::new(columns).word_splitter(WordSplitter::NoHyphenation).break_words(false);
    textwrap::fill(text, options.initial_indent(first).subsequent_indent(others))
}

/// Columns that a line takes, without its styles.
pub fn width(line: &str) -> usize {
    textwrap::core::display_width(line)
}
