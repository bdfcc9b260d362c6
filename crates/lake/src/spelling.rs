//! Names with parameters (`generated:8x8,holes=0.2,seed=7`, `drawn:falling,moves=8`), and suggestions for misspelled
//! names.

use crate::error::LakeError;

/// A name, taken apart.
pub(crate) struct Spelled<'a> {
    /// Name in error messages.
    subject: &'static str,
    /// Text before the first comma.
    pub(crate) head: &'a str,
    /// Further fields, each with its value.
    pub(crate) fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Spelled<'a> {
    /// Parses a name with parameters.
    ///
    /// # Errors
    ///
    /// [`LakeError::Field`] for a field that is given twice.
    pub(crate) fn new(subject: &'static str, prefix: &str, name: &'a str) -> Result<Self, LakeError> {
        let mut parts = name.strip_prefix(prefix).unwrap_or(name).split(',').map(str::trim);
        let head = parts.next().unwrap_or_default();
        let mut spelled = Self { subject, head, fields: Vec::new() };
        for (field, value) in parts.map(|part| part.split_once('=').unwrap_or((part, ""))) {
            if let Some((_, earlier)) = spelled.fields.iter().find(|(earlier, _)| *earlier == field) {
                return Err(spelled.fail(field, "one value", &format!("{earlier}\" and \"{value}")));
            }
            spelled.fields.push((field, value));
        }
        Ok(spelled)
    }

    /// That a part is not what is allowed.
    pub(crate) fn fail(&self, part: &str, allowed: &str, given: &str) -> LakeError {
        LakeError::Field {
            field: format!("{}.{part}", self.subject),
            allowed: allowed.to_owned(),
            given: format!("\"{given}\""),
        }
    }

    /// Parses a seed.
    pub(crate) fn seed(&self, value: &str) -> Result<u64, LakeError> {
        value.parse().map_err(|_| self.fail("seed", "a whole number, 0 <= seed < 2^64", value))
    }
}

/// Limit of suggested names.
const MOST_SUGGESTED: usize = 3;

/// Adds suggestions to the error if existing names are similar to the given one.
pub(crate) fn suggest<'a>(error: LakeError, given: &str, names: impl IntoIterator<Item = &'a str>) -> LakeError {
    match nearest(given, names).as_slice() {
        [] => error,
        [name] => LakeError::Misspelled { error: Box::new(error), meant: (*name).to_owned() },
        [names @ .., last] => {
            let meant = format!("{} or {last}", names.join(", "));
            LakeError::Misspelled { error: Box::new(error), meant }
        }
    }
}

/// The names that differ from the given one in case only, or else those with the fewest edits, at most one edit for
/// three letters.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = given.to_lowercase();
    let most = (given.chars().count() / 3).max(1);
    let edits = |name: &str| strsim::osa_distance(&lower, &name.to_lowercase());
    let mut near: Vec<_> =
        names.into_iter().map(|name| (edits(name), name)).filter(|(edits, _)| *edits <= most).collect();
    let least = near.iter().map(|(edits, _)| *edits).min();
    near.retain(|(edits, _)| Some(*edits) == least);
    near.truncate(MOST_SUGGESTED);
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
}
