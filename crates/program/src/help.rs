//! Help of a program's command line.

use clap::Command;

use crate::terminal::{HEADING, NAME, styled};

/// The sections of the short help: the options are left to the long one.
const SHORT: &str = "{about}\n\n{usage-heading} {usage}{after-help}";

/// The help of a program that is started without arguments: its purpose, its commands, and examples with their
/// purposes.
pub fn short(command: Command, examples: &[(&str, &str)], more: &str) -> String {
    let longest = examples.iter().map(|(example, _)| example.len()).max().unwrap_or(0);
    let line = |(example, purpose): &(&str, &str)| {
        format!("  {}{}  {purpose}\n", styled(NAME, example), " ".repeat(longest - example.len()))
    };
    let examples: String = examples.iter().map(line).collect();
    let commands = format!("{}\n{{subcommands}}", styled(HEADING, "Commands:"));
    let after = format!("{}\n{examples}\n{more}", styled(HEADING, "Examples:"));
    let mut command = command.help_template(format!("{SHORT}\n\n{commands}")).after_help(after);
    command.render_help().ansi().to_string()
}

/// The long help of one of a program's commands, or of the program; none if there is no such command.
pub fn long(mut command: Command, topic: Option<&str>) -> Option<String> {
    command.build();
    let topic = match topic {
        Some(topic) => command.find_subcommand_mut(topic)?,
        None => &mut command,
    };
    Some(topic.render_long_help().ansi().to_string())
}
