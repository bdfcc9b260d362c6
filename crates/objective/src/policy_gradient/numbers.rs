//! Numbers of a response's tokens, which are often all equal.

/// A number for each token of a response, or one for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Numbers<'a> {
    /// The same number for every token.
    Same(f64),
    /// A number for each token.
    Each(&'a [f64]),
}

impl Numbers<'_> {
    /// The number that belongs to a token.
    pub(super) fn at(self, token: usize) -> f64 {
        match self {
            Self::Same(value) => value,
            Self::Each(values) => values[token],
        }
    }

    /// Sum over a response of this many tokens.
    pub(super) fn sum(self, tokens: usize) -> f64 {
        match self {
            Self::Same(value) => value * tokens as f64,
            Self::Each(values) => values.iter().sum(),
        }
    }

    /// The common number, if all tokens have the same.
    pub(super) fn same(self) -> Option<f64> {
        match self {
            Self::Same(value) => Some(value),
            Self::Each(_) => None,
        }
    }
}
