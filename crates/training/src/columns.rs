//! Concatenated columns of several micro-batches.

use std::ops::Range;

use enumset::EnumSet;
use objective::{Constant, Pair, Requirements, Response, Statistic, TokenColumns, TokenConstants, TokenStatistics};
use serde::{Deserialize, Serialize};

/// Columns of several micro-batches: those of a whole step, if its responses are coupled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Columns {
    statistics: TokenStatistics,
    constants: TokenConstants,
    responses: Vec<Response>,
    pairs: Vec<Pair>,
}

impl Columns {
    /// Borrows the columns for an evaluation.
    pub(crate) fn view(&self) -> TokenColumns<'_> {
        let Self { statistics, constants, responses, pairs } = self;
        TokenColumns { statistics, constants, responses, pairs }
    }

    /// Empties every column.
    pub(crate) fn clear(&mut self) {
        EnumSet::all().iter().for_each(|statistic: Statistic| self.statistics.column_mut(statistic).clear());
        EnumSet::all().iter().for_each(|constant: Constant| self.constants.column_mut(constant).clear());
        self.responses.clear();
        self.pairs.clear();
    }

    /// Number of response tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.responses.last().map_or(0, |response| response.tokens.end)
    }

    /// Appends the required columns of another micro-batch.
    pub(crate) fn append(&mut self, requirements: &Requirements, others: &TokenColumns<'_>) {
        let TokenColumns { statistics, constants, responses, pairs } = others;
        let (tokens, first) = (self.tokens(), self.responses.len());
        for statistic in requirements.statistics {
            self.statistics.column_mut(statistic).extend(statistics.column(statistic));
        }
        for constant in requirements.constants {
            self.constants.column_mut(constant).extend(constants.column(constant));
        }
        if !(self.constants.weight.is_empty() && constants.weight.is_empty()) {
            // Responses without weights have weight 1.
            self.constants.weight.resize(first, 1.0);
            self.constants.weight.extend(&constants.weight);
            self.constants.weight.resize(first + responses.len(), 1.0);
        }
        self.responses.extend(responses.iter().map(|response| response.shifted(tokens)));
        let shifted = |pair: &Pair| Pair { chosen: pair.chosen + first, rejected: pair.rejected + first };
        self.pairs.extend(pairs.iter().map(shifted));
    }
}

/// Copies the values of a range of tokens from the columns into `part`, whose columns have the length of the range.
pub(crate) fn copy_tokens(
    statistics: EnumSet<Statistic>,
    all: &TokenStatistics,
    tokens: Range<usize>,
    part: &mut TokenStatistics,
) {
    for statistic in statistics {
        part.column_mut(statistic).copy_from_slice(&all.column(statistic)[tokens.clone()]);
    }
}
