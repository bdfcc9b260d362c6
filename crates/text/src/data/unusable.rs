//! Kinds of records that no method can learn from, and counts of those that were skipped.

use std::collections::BTreeMap;
use std::fmt;

use strum::IntoStaticStr;

use crate::error::TextError;

/// Reason why no method can learn from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr)]
pub enum Unusable {
    /// The line is not a JSON object, or is too long.
    #[strum(serialize = "not a JSON object")]
    Json,
    /// A field is missing, unknown, or of another type.
    #[strum(serialize = "with wrong fields")]
    Fields,
    /// A prompt or a response is empty.
    #[strum(serialize = "with an empty prompt or response")]
    Empty,
    /// The two responses of a pair are equal.
    #[strum(serialize = "with equal responses")]
    Equal,
    /// The prompt leaves no room for a response.
    #[strum(serialize = "too long")]
    Overlong,
    /// The method learns from another kind of records.
    #[strum(serialize = "of a kind that the method does not learn from")]
    Unlike,
    /// The model lacks a tokenizer, a chat template, or the token that the record needs.
    #[strum(serialize = "that the model cannot encode")]
    Encoding,
    /// The chat template rejects the conversation.
    #[strum(serialize = "refused by the chat template")]
    Template,
}

impl Unusable {
    /// Marks an error as one of this kind.
    pub fn because(self, source: TextError) -> TextError {
        TextError::Unusable { kind: self, source: Box::new(source) }
    }

    /// The kind of an error; `None` if the error is not about a single record.
    pub fn of(error: &TextError) -> Option<Self> {
        match error {
            TextError::Unusable { kind, .. } => Some(*kind),
            TextError::Line { source, .. } | TextError::Row { source, .. } | TextError::Entry { source, .. } => {
                Self::of(source)
            }
            TextError::Length { .. } => Some(Self::Overlong),
            TextError::Record { .. } => Some(Self::Fields),
            TextError::Template { .. } | TextError::Boundary { .. } => Some(Self::Template),
            _ => None,
        }
    }
}

/// The skipped records of a file: for each kind, their number, and the error and line of the first one.
#[derive(Debug, Default)]
pub struct Skipped(BTreeMap<Unusable, (usize, TextError)>);

impl Skipped {
    /// Adds one skipped record.
    pub fn add(&mut self, kind: Unusable, error: TextError) {
        self.0.entry(kind).or_insert((0, error)).0 += 1;
    }

    /// Number of skipped records of all kinds.
    pub fn count(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }
}

/// Formats one line for each kind.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, (count, first))) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{count} {}; the first: {first}", <&str>::from(kind))?;
        }
        Ok(())
    }
}
