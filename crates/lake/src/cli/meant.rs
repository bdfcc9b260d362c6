//! Suggestions for arguments of the command line that cannot be parsed.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};

/// Options with an optional value, which must follow an `=`.
const SWITCHES: [&str; 2] = ["--slippery", "--parameterised-target"];
/// Options whose values are separated by commas.
const LISTS: [&str; 2] = ["--method", "--reward-schedule"];

/// The error, with a suggestion where this process's arguments contain a common mistake.
pub(crate) fn explain(mut error: clap::Error) -> clap::Error {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(meant) = meant(&arguments).filter(|_| error.use_stderr()) {
        let tip = ContextValue::StyledStrs(vec![StyledStr::from(format!("did you mean '{meant}'?"))]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

/// The correct spelling of the first option whose values are separated by spaces.
fn meant(arguments: &[String]) -> Option<String> {
    let is_value = |text: &&String| !text.starts_with('-') || text.parse::<f64>().is_ok();
    arguments.iter().enumerate().find_map(|(place, argument)| {
        let (option, own) =
            argument.split_once('=').map_or((argument.as_str(), None), |(option, own)| (option, Some(own)));
        let behind = arguments[place + 1..].iter().take_while(is_value).map(String::as_str);
        let values: Vec<_> = own.into_iter().chain(behind).map(|value| value.trim_end_matches(',')).collect();
        if SWITCHES.contains(&option) && own.is_none() {
            return values
                .first()
                .filter(|value| value.parse::<bool>().is_ok())
                .map(|value| format!("{option}={value}"));
        }
        (LISTS.contains(&option) && values.len() > 1).then(|| format!("{option} {}", values.join(",")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_one_by_one_are_joined_and_a_switch_is_set_by_an_equals_sign() {
        for (line, expected) in [
            ("--method dpo ift --seeds 3", Some("--method dpo,ift")),
            ("--method=dpo, ift", Some("--method dpo,ift")),
            ("--reward-schedule 1 -1 -0.01", Some("--reward-schedule 1,-1,-0.01")),
            ("--seeds 3 --slippery true", Some("--slippery=true")),
            ("solve --slippery=true", None),
            ("--method dpo,ift --seeds 3", None),
        ] {
            let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(meant(&arguments).as_deref(), expected, "{line}");
        }
    }
}
