//! Why a record cannot be learnt from, and how many of a file were skipped.

use std::collections::BTreeMap;
use std::fmt;

use strum::IntoStaticStr;

use crate::error::LmError;

/// Why a record cannot be learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr)]
pub enum Unusable {
    /// A line is no JSON object, or is too long.
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
    /// The model has no tokenizer, no chat template or no token for it.
    #[strum(serialize = "that the model cannot encode")]
    Encoding,
    /// The chat template refuses it.
    #[strum(serialize = "refused by the chat template")]
    Template,
}

impl Unusable {
    /// The refusal of a record of this kind.
    pub(crate) fn because(self, source: LmError) -> LmError {
        LmError::Unusable { kind: self, source: Box::new(source) }
    }

    /// The kind of a refusal; none where it is not about a record alone.
    pub fn of(error: &LmError) -> Option<Self> {
        match error {
            LmError::Unusable { kind, .. } => Some(*kind),
            LmError::Line { source, .. } | LmError::Row { source, .. } | LmError::Entry { source, .. } => {
                Self::of(source)
            }
            LmError::Length { .. } => Some(Self::Overlong),
            LmError::Record { .. } => Some(Self::Fields),
            LmError::Template { .. } | LmError::Boundary { .. } => Some(Self::Template),
            _ => None,
        }
    }
}

/// The records of a file that were skipped: of each kind the number, and the refusal of the first with its line.
#[derive(Debug, Default)]
pub struct Skipped(BTreeMap<Unusable, (usize, LmError)>);

impl Skipped {
    /// Counts one more.
    pub(crate) fn add(&mut self, kind: Unusable, error: LmError) {
        self.0.entry(kind).or_insert((0, error)).0 += 1;
    }

    /// Number of records of all kinds.
    pub fn count(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }
}

/// A line for each kind.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, (count, first))) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{count} {}; the first: {first}", <&str>::from(kind))?;
        }
        Ok(())
    }
}
