//! Refused fields, with suggestions for misspelled names.

use objective::{ParameterError, RegistryError};
use training::OptimizerError;

/// Maximum number of suggested names.
const SUGGESTED_MAX: usize = 3;

/// A refused field of a recipe.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: expected {allowed}, got {given}{}", did_you_mean(meant))]
pub struct Refusal {
    /// Path of the field, such as `stage[0].batch`.
    pub field: String,
    /// Description of the allowed values.
    pub allowed: String,
    /// The given value.
    pub given: String,
    /// Existing names that are spelled like the given one.
    pub meant: Vec<String>,
}

impl Refusal {
    /// A refusal without suggestions.
    pub fn new(field: impl Into<String>, allowed: impl Into<String>, given: impl ToString) -> Self {
        Self { field: field.into(), allowed: allowed.into(), given: given.to_string(), meant: Vec::new() }
    }

    /// Adds suggestions to the refusal: those of the names that are spelled like `given`.
    pub fn suggest<'a>(self, given: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { meant: nearest(given, names).into_iter().map(str::to_owned).collect(), ..self }
    }

    /// The refusal of a field within `owner`.
    pub fn within(self, owner: &str) -> Self {
        let field = match (owner, self.field.as_str()) {
            ("", field) => field.to_owned(),
            (owner, "") => owner.to_owned(),
            (owner, field) => format!("{owner}.{field}"),
        };
        Self { field, ..self }
    }
}

/// The error of a method or optimizer, with the names that are spelled like an unknown one.
///
/// # Examples
///
/// ```
/// use recipe::refusal::{MethodError, explained};
///
/// let error = objective::registry::find("simpoo").unwrap_err();
/// assert!(explained(&MethodError::from(error)).ends_with("; did you mean simpo?"));
/// ```
pub fn explained(error: &MethodError) -> String {
    let unknown = match error {
        MethodError::Method(RegistryError::Unknown { name, allowed })
        | MethodError::Optimizer(OptimizerError::Unknown { name, allowed }) => Some((name, allowed)),
        MethodError::Method(RegistryError::Parameter(ParameterError::Unknown { name, allowed, .. }))
        | MethodError::Optimizer(OptimizerError::Parameter(ParameterError::Unknown { name, allowed, .. })) => {
            Some((name, allowed))
        }
        _ => None,
    };
    let names = unknown.map_or(Vec::new(), |(name, allowed)| nearest(name, allowed.split(", ")));
    format!("{error}{}", did_you_mean(&names))
}

/// A refused method or optimizer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MethodError {
    /// An error of a method.
    #[error(transparent)]
    Method(#[from] RegistryError),
    /// An error of an optimizer.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}

/// The question that suggests names: empty without a name, else `; did you mean a, b or c?`.
pub fn did_you_mean(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [name] => format!("; did you mean {name}?"),
        [names @ .., last] => format!("; did you mean {} or {last}?", names.join(", ")),
    }
}

/// The names that differ from the given one in case only, or else those with the fewest edits, at most one edit for
/// three letters.
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = given.to_lowercase();
    let allowed = (given.chars().count() / 3).max(1);
    let edits = |name: &str| strsim::osa_distance(&lower, &name.to_lowercase());
    let mut near: Vec<_> =
        names.into_iter().map(|name| (edits(name), name)).filter(|(edits, _)| *edits <= allowed).collect();
    let fewest = near.iter().map(|(edits, _)| *edits).min();
    near.retain(|(edits, _)| Some(*edits) == fewest);
    near.truncate(SUGGESTED_MAX);
    near.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_those_of_the_fewest_edits_whatever_their_case() {
        let names = ["sft", "dpo", "ift", "orpo", "online_dpo"];
        for (given, expected) in [
            ("DPO", &["dpo"][..]),
            ("iftt", &["ift"]),
            ("onlinedpo", &["online_dpo"]),
            ("fst", &["sft"]),
            ("perplexity", &[]),
        ] {
            assert_eq!(nearest(given, names), expected, "{given}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_what_is_allowed_what_was_given_and_near_names() {
        let refusal = Refusal::new("steps", "1 to 10", 11).within("recipe");
        assert_eq!(refusal.to_string(), "recipe.steps: expected 1 to 10, got 11");
        let misspelled = Refusal::new("stpes", "a field", "\"stpes\"").suggest("stpes", ["steps", "seeds"]);
        assert_eq!(misspelled.to_string(), "stpes: expected a field, got \"stpes\"; did you mean steps?");
        assert_eq!(did_you_mean(&["a", "b", "c"]), "; did you mean a, b or c?");
    }
}
