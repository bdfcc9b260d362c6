//! Counts of clipped importance ratios.

use super::trust_region::Bounded;
use crate::evaluation::{Metric, Metrics};

/// Numbers of clipped importance ratios, by bound, and of all ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clipped {
    below: usize,
    above: usize,
    ratios: usize,
}

impl Clipped {
    /// Counts a ratio under the bound at which it is clipped, if any.
    pub(super) fn count(&mut self, bound: Option<Bounded>) {
        self.ratios += 1;
        match bound {
            Some(Bounded::Below) => self.below += 1,
            Some(Bounded::Above) => self.above += 1,
            None => {}
        }
    }

    /// Counts so many ratios of which none is clipped.
    pub(super) fn count_free(&mut self, ratios: usize) {
        self.ratios += ratios;
    }

    /// Records the shares of clipped ratios as metrics, if there is any ratio.
    pub(super) fn record(self, metrics: &mut Metrics) {
        metrics.record_sum(Metric::ClipFraction, (self.below + self.above) as f64, self.ratios);
        metrics.record_sum(Metric::ClipFractionLow, self.below as f64, self.ratios);
        metrics.record_sum(Metric::ClipFractionHigh, self.above as f64, self.ratios);
    }
}
