//! The rate at which a judge prefers one model to the other, with its confidence interval.
//!
//! Pairs are the sample. A pair's score is the mean over both orders of 1 if A was preferred, ½ for a tie and 0 for B.
//! A rate is the mean over pairs, and its interval is Student's t of n − 1 degrees of freedom on the standard error.
//! The interval has no width if all pairs agree, which says nothing about other pairs.
//!
//! The length-controlled rate is the prediction of a logistic regression of the scores on tanh(dᵢ / s) at d = 0,
//! σ(intercept); dᵢ is the number of characters by which A's answer is longer than B's, and s the standard deviation of
//! all dᵢ (with n − 1). Its interval is Student's t of n − 2 degrees of freedom on the intercept's standard error
//! (robust, as scores need not be 0 or 1), mapped through σ.
//!
//! The method shares with AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, and the `alpaca_eval` program): the
//! logistic model, tanh of the difference divided by its standard deviation and not centred, lengths in characters, the
//! counterfactual of no difference, ties as halves. It differs in that:
//!
//! - there is no term for the instruction's difficulty, which AlpacaEval fits on the leaderboard's models and its 805
//!   instructions;
//! - there is no penalty and no cross-validation, as two numbers are fitted to hundreds of pairs;
//! - there are no answers of a baseline prompted to be longer or shorter beside the model's;
//! - a verdict is 0, ½ or 1 instead of a probability of tokens;
//! - both orders are asked, while AlpacaEval samples one for each pair;
//! - the interval is that of the intercept, while AlpacaEval's standard error is the spread of its predictions.
//!
//! So a rate is close to that of AlpacaEval's model without these parts (its `length_controlled_minimal`), and not
//! comparable with its leaderboard.

use std::collections::HashMap;

use objective::numerics::sigmoid;
use program::statistics::{Mean, student};
use serde::Serialize;

use super::logistic::{Fit, fit};
use super::question::Pair;
use super::verdict::{Choice, Order, Verdict};

/// A mean of one number in [0, 1] for each pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Mean over the pairs.
    pub rate: f64,
    /// 95% interval; `None` for a single pair.
    pub interval: Option<[f64; 2]>,
}

impl Rate {
    /// Computes the mean of numbers, or `None` if there are none.
    pub fn new(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let Mean { mean: rate, half_width } = Mean::of(values);
        let interval = half_width.map(|half| [(rate - half).max(0.0), (rate + half).min(1.0)]);
        Some(Self { rate, interval })
    }
}

/// The win rate at equal lengths of answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Controlled {
    /// Prediction of the regression.
    Fitted {
        /// Win rate at a difference of 0 between the lengths of the answers.
        rate: f64,
        /// 95% interval of the rate.
        interval: [f64; 2],
        /// Log-odds of the rate.
        intercept: f64,
        /// Slope of the log-odds in tanh of the standardised difference of lengths.
        slope: f64,
    },
    /// The regression has no solution.
    None {
        /// Reason why there is no solution.
        none: &'static str,
    },
}

impl Controlled {
    /// Fits the regression to pairs (difference of lengths in characters, score of the first model).
    pub fn new(pairs: &[(f64, f64)]) -> Self {
        let count = pairs.len() as f64;
        if pairs.len() < 3 {
            return Self::None { none: "fewer than 3 pairs" };
        }
        let mean = pairs.iter().map(|(difference, _)| difference).sum::<f64>() / count;
        let squares: f64 = pairs.iter().map(|(difference, _)| (difference - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        if deviation == 0.0 {
            return Self::None { none: "the difference of lengths is the same in every pair" };
        }
        let points: Vec<_> =
            pairs.iter().map(|(difference, score)| ((difference / deviation).tanh(), *score)).collect();
        match (fit(&points), student(count - 2.0)) {
            (Some(Fit { intercept, slope, intercept_error }), Some(t)) => {
                let half = t * intercept_error;
                let interval = [sigmoid(intercept - half), sigmoid(intercept + half)];
                Self::Fitted { rate: sigmoid(intercept), interval, intercept, slope }
            }
            _ => Self::None { none: "a difference of lengths separates wins from losses, or all pairs agree" },
        }
    }
}

/// Numbers of verdicts and pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Pairs that were judged, in both orders.
    pub pairs: usize,
    /// Pairs with a verdict in both orders, from which the rates are computed.
    pub judged: usize,
    /// Verdicts for A.
    pub a: usize,
    /// Verdicts for B.
    pub b: usize,
    /// Ties: verdicts for neither A nor B.
    pub tie: usize,
    /// Answers without a verdict.
    pub unparsable: usize,
}

/// Rates of a comparison of two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Numbers of verdicts and pairs.
    pub counts: Counts,
    /// Rate at which A is preferred, a tie counting ½; `None` if no pair is judged.
    pub win_rate: Option<Rate>,
    /// Rate at which A is preferred at equal lengths of answers.
    pub length_controlled: Controlled,
    /// Share of pairs for which the verdicts of the two orders differ.
    pub disagreement: Option<Rate>,
    /// Rate at which the first answer that the judge reads is preferred, a tie counting ½. It is ½ if the order has no
    /// effect.
    pub first: Option<Rate>,
}

impl Rates {
    /// Computes the rates of verdicts on these pairs, at most one for each order.
    pub fn new(pairs: &[Pair<'_>], verdicts: &[Verdict]) -> Self {
        let by_question: HashMap<_, _> =
            verdicts.iter().map(|verdict| ((verdict.pair, verdict.order), verdict.verdict)).collect();
        let count = |choice| verdicts.iter().filter(|verdict| verdict.verdict == choice).count();
        let (mut scores, mut lengths, mut disagree, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, pair) in pairs.iter().enumerate() {
            let found = Order::BOTH.map(|order| by_question.get(&(index, order)).copied().flatten());
            let [Some(shown_first), Some(shown_second)] = found else { continue };
            let score = f64::midpoint(worth(shown_first), worth(shown_second));
            scores.push(score);
            lengths.push((length(&pair.a.output) - length(&pair.b.output), score));
            disagree.push(f64::from(u8::from(shown_first != shown_second)));
            first.push(f64::midpoint(worth(shown_first), 1.0 - worth(shown_second)));
        }
        Self {
            counts: Counts {
                pairs: pairs.len(),
                judged: scores.len(),
                a: count(Some(Choice::A)),
                b: count(Some(Choice::B)),
                tie: count(Some(Choice::Tie)),
                unparsable: count(None),
            },
            win_rate: Rate::new(&scores),
            length_controlled: Controlled::new(&lengths),
            disagreement: Rate::new(&disagree),
            first: Rate::new(&first),
        }
    }
}

/// Score of A for a verdict.
fn worth(choice: Choice) -> f64 {
    match choice {
        Choice::A => 1.0,
        Choice::Tie => 0.5,
        Choice::B => 0.0,
    }
}

/// Length of a text in characters, as Python counts them.
pub(super) fn length(text: &str) -> f64 {
    text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::Output;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn an_interval_is_students() {
        let Rate { rate, interval } = Rate::new(&[0.0, 0.5, 1.0, 0.5]).unwrap();
        // The standard error is √(1/6 / 4), and t of 3 degrees of freedom 3.182446305284263.
        let half = 3.182446305284263 * (1.0f64 / 24.0).sqrt();
        near(rate, 0.5);
        let [low, high] = interval.unwrap();
        near(low, (0.5 - half).max(0.0));
        near(high, (0.5 + half).min(1.0));
        assert_eq!(Rate::new(&[0.5]).unwrap().interval, None);
        assert_eq!(Rate::new(&[]), None);
    }

    #[test]
    fn without_lengths_that_differ_there_is_no_controlled_rate() {
        let none = |pairs: &[(f64, f64)]| match Controlled::new(pairs) {
            Controlled::None { none } => none,
            fitted => panic!("{fitted:?}"),
        };
        assert_eq!(none(&[(1.0, 1.0), (2.0, 0.0)]), "fewer than 3 pairs");
        assert_eq!(none(&[(1.0, 1.0), (1.0, 0.0), (1.0, 0.5)]), "the difference of lengths is the same in every pair");
        let separated = "a difference of lengths separates wins from losses, or all pairs agree";
        assert_eq!(none(&[(1.0, 1.0), (2.0, 1.0), (-1.0, 0.0)]), separated);
    }

    #[test]
    fn a_pair_without_both_verdicts_is_in_no_rate_and_counted_apart() {
        let output =
            |text: &str| Output { instruction: String::new(), output: text.to_owned(), generator: None, dataset: None };
        let (a, b) = (output("é"), output("bb"));
        let pairs = [Pair { a: &a, b: &b }; 2];
        let verdict = |pair, order, verdict| Verdict {
            pair,
            order,
            verdict,
            answer: String::new(),
            fingerprint: String::new(),
            model: String::new(),
        };
        let verdicts = [
            verdict(0, Order::AThenB, Some(Choice::A)),
            verdict(0, Order::BThenA, Some(Choice::Tie)),
            verdict(1, Order::AThenB, Some(Choice::B)),
            verdict(1, Order::BThenA, None),
        ];
        let rates = Rates::new(&pairs, &verdicts);
        assert_eq!(rates.counts, Counts { pairs: 2, judged: 1, a: 1, b: 1, tie: 1, unparsable: 1 });
        assert_eq!(rates.win_rate, Some(Rate { rate: 0.75, interval: None }));
        assert_eq!(rates.disagreement, Some(Rate { rate: 1.0, interval: None }));
        assert_eq!(rates.first, Some(Rate { rate: 0.75, interval: None }));
        assert_eq!(length(&a.output) - length(&b.output), -1.0, "characters and not bytes");
    }
}
