//! Methods of a command line: `dpo`, `dpo:beta=0.05;label_smoothing=0.1`, `sft+dpo:beta=0.05`.
//!
//! A colon begins the parameters of a method, a semicolon separates them, and a plus sign joins methods that train one
//! after the other.

use toml::{Table, Value};

use crate::kind::guess;
use crate::refusal::Refusal;

/// A method's name and its given parameters, as a table of `name` and parameters.
pub type Named = Table;

/// The methods of a text, in the order in which they train.
///
/// # Errors
///
/// [`Refusal`] of a parameter that is not `name=value`, or that is given twice.
///
/// # Examples
///
/// ```
/// let methods = recipe::method::parse("sft+dpo:beta=0.05;label_smoothing=0.1")?;
/// assert_eq!(methods[0]["name"].as_str(), Some("sft"));
/// assert_eq!(methods[1]["beta"].as_float(), Some(0.05));
/// # Ok::<(), recipe::Refusal>(())
/// ```
pub fn parse(text: &str) -> Result<Vec<Named>, Refusal> {
    sequence(text).into_iter().map(parse_one).collect()
}

/// The name before the parameters.
pub fn head(text: &str) -> &str {
    text.split_once(':').map_or(text, |(head, _)| head).trim()
}

/// The parameters behind the name.
///
/// # Errors
///
/// [`Refusal`] as [`parse`].
pub fn parameters(text: &str) -> Result<Table, Refusal> {
    let mut parameters = Table::new();
    let Some((name, assignments)) = text.split_once(':') else { return Ok(parameters) };
    for assignment in assignments.split(';') {
        let refuse = |given: &str| {
            let allowed = "NAME:PARAMETER=VALUE, and a semicolon before each further parameter, each once";
            Err(Refusal::new(name.trim(), allowed, format!("\"{given}\"")))
        };
        let Some((key, value)) = assignment.split_once('=') else { return refuse(assignment) };
        let key = key.trim();
        if key.is_empty() || key == "name" || parameters.insert(key.to_owned(), guess(value.trim())).is_some() {
            return refuse(assignment);
        }
    }
    Ok(parameters)
}

/// The label of a method among rows of equal methods: its name and its given parameters, of letters, digits, `-`, `_`
/// and `.`.
pub fn label(name: &str, parameters: &Table) -> String {
    let written = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => objective::Value::Number(*number).to_string(),
        other => other.to_string(),
    };
    let parts = parameters.iter().map(|(parameter, value)| format!("-{parameter}-{}", written(value)));
    let text: String = [name.to_owned()].into_iter().chain(parts).collect();
    text.chars().map(|char| if char.is_ascii_alphanumeric() || "-_.+".contains(char) { char } else { '-' }).collect()
}

fn parse_one(text: &str) -> Result<Named, Refusal> {
    let mut named = parameters(text)?;
    named.insert("name".to_owned(), head(text).into());
    Ok(named)
}

/// A text divided at each plus sign before a letter: the one of `1e+3` is part of a number.
fn sequence(text: &str) -> Vec<&str> {
    let joins = |place: &usize| !text[place + 1..].starts_with(|char: char| char.is_ascii_digit());
    let mut parts = Vec::new();
    let mut start = 0;
    for place in text.match_indices('+').map(|(place, _)| place).filter(joins) {
        parts.push(&text[start..place]);
        start = place + 1;
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stand_behind_a_colon_and_a_semicolon_separates_them() {
        let parsed = parse("dpo:beta=0.05;label_smoothing=0.1").unwrap();
        assert_eq!(parsed, ["name = \"dpo\"\nbeta = 0.05\nlabel_smoothing = 0.1".parse::<Table>().unwrap()]);
        let joined = parse("sft+dpo:beta=1e+3").unwrap();
        assert_eq!(
            joined,
            [r#"name = "sft""#, "name = \"dpo\"\nbeta = 1000.0"].map(|text| text.parse::<Table>().unwrap())
        );
    }

    #[test]
    fn a_parameter_without_a_value_or_given_twice_is_refused() {
        for text in ["dpo:beta", "dpo:beta=1;beta=2", "dpo:", "dpo:=1", "dpo:name=sft"] {
            let refused = parse(text).unwrap_err().to_string();
            assert!(refused.starts_with("dpo: expected NAME:PARAMETER=VALUE"), "{refused}");
        }
    }

    #[test]
    fn a_label_has_the_given_parameters_and_only_letters_that_file_names_may_have() {
        let label_of = |text| label(head(text), &parameters(text).unwrap());
        assert_eq!(label_of("dpo:beta=0.05;label_smoothing=0.1"), "dpo-beta-0.05-label_smoothing-0.1");
        assert_eq!(label_of("grpo:trust_region=cispo"), "grpo-trust_region-cispo");
        assert_eq!(label_of("a:b=x/y"), "a-b-x-y");
    }
}
