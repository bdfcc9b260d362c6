//! Printing of errors, and exit codes.

use std::io::ErrorKind;
use std::process::{ExitCode, Termination};

/// Exit code of a program: that of its result, 0 for a reader that has closed the pipe (`lake ... | head`), and 2 for
/// any other error, which is printed as one line.
pub fn exit_code(outcome: anyhow::Result<impl Termination>) -> ExitCode {
    match outcome {
        Ok(done) => done.report(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(&chain(&error)));
            ExitCode::from(2)
        }
    }
}

/// Removes characters that would move a terminal's cursor or change its colours or the order of its letters, as texts
/// may come from strangers. Line breaks and tabs are kept.
pub fn printable(text: &str) -> String {
    let is_shown = |char: &char| match char {
        '\n' | '\t' => true,
        // Marks and overrides of the direction of writing.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        char => !char.is_control(),
    };
    text.chars().filter(is_shown).collect()
}

/// Formats an error and its causes, without those causes that a message already includes.
fn chain(error: &anyhow::Error) -> String {
    let mut causes = error.chain().map(ToString::to_string);
    let first = causes.next().unwrap_or_default();
    causes.fold(first, |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    error.chain().any(is_broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_codes_are_stripped_and_letters_stay() {
        assert_eq!(printable("a\u{1b}[31m\tb\nc\r\u{8}\u{9b}é🙂\u{202e}"), "a[31m\tb\ncé🙂");
    }
}
