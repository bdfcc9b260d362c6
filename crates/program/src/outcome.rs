//! How an error is told, and with which exit code.

use std::io::ErrorKind;
use std::process::{ExitCode, Termination};

/// 0 for what went well, or the code that it answers, and 0 for a reader that has seen enough (`lake ... | head`). Any other error is
/// printed as one line, and the code is 2.
pub fn exit_code(outcome: anyhow::Result<impl Termination>) -> ExitCode {
    match outcome {
        Ok(done) => done.report(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(2)
        }
    }
}

/// The error and what caused it, each once: some say of themselves what caused them.
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
