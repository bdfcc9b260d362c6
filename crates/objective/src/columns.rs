//! The columns over response tokens: one table of names, meanings and permitted values.

use std::ops::{Range, RangeInclusive};

use enumset::{EnumSet, EnumSetType};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::parameter::purpose;

/// Maximum magnitude of a number in a batch: sums and products of a million such numbers are finite.
pub const MOST: f64 = 1e30;

macro_rules! columns {
    (
        statistics { $($(#[doc = $doc:literal])* $statistic:ident $own:ident: $range:expr,)* }
        constants { $($(#[doc = $constant_doc:literal])* $constant:ident $held:ident: $constant_range:expr,)* }
    ) => {
        /// Name of a differentiable column, with a number per response token.
        #[derive(Debug, Hash, IntoStaticStr, EnumSetType)]
        #[strum(serialize_all = "snake_case")]
        pub enum Statistic {
            $($(#[doc = $doc])* $statistic,)*
        }

        /// Name of a constant column, with a number per response token that the step does not differentiate.
        #[derive(Debug, Hash, IntoStaticStr, EnumSetType)]
        #[strum(serialize_all = "snake_case")]
        pub enum Constant {
            $($(#[doc = $constant_doc])* $constant,)*
        }

        /// Differentiable columns over response tokens, or their cotangents. Columns that are not required are empty.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct TokenStatistics {
            $($(#[doc = $doc])* pub $own: Vec<f64>,)*
        }

        /// Columns over response tokens that the step does not differentiate. Columns that are not required are empty.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct TokenConstants {
            $($(#[doc = $constant_doc])* pub $held: Vec<f64>,)*
        }

        /// Responses: their lengths, and borrowed columns over their tokens. Prompts and padding are omitted, and
        /// responses follow one another without gaps.
        ///
        /// Only the columns that an objective requires may be given; start from [`Side::of`] and set them.
        ///
        /// ```
        /// use objective::{Demonstrations, Sft, Side};
        ///
        /// let side = Side { log_prob: &[-1.0, -3.0, -2.0], ..Side::of(&[2, 1]) }; // two responses
        /// assert_eq!(Sft::default().evaluator()?.evaluate(&Demonstrations(side))?.loss, 2.0);
        ///
        /// let short = Side { log_prob: &[-1.0, -3.0], ..side };
        /// let error = Sft::default().evaluator()?.evaluate(&Demonstrations(short)).unwrap_err().to_string();
        /// assert_eq!(error, "log_prob: expected 3 numbers, one a response token of a required column, got 2");
        /// Ok::<(), objective::Error>(())
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct Side<'a> {
            /// Number of tokens in each response.
            pub lengths: &'a [usize],
            $($(#[doc = $doc])* pub $own: &'a [f64],)*
            $($(#[doc = $constant_doc])* pub $held: &'a [f64],)*
        }

        /// ∂loss/∂statistic for each response token. Columns that are not required are empty.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct Cotangents<'a> {
            $(#[doc = concat!("∂loss/∂", stringify!($own), ".")] pub $own: &'a [f64],)*
        }

        impl Statistic {
            /// Range of the permitted values.
            pub fn range(self) -> RangeInclusive<f64> {
                match self {
                    $(Self::$statistic => $range,)*
                }
            }

            /// Meaning of the column, and its unit.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$statistic => const { purpose(concat!($($doc),*)) },)*
                }
            }
        }

        impl Constant {
            /// Range of the permitted values.
            pub fn range(self) -> RangeInclusive<f64> {
                match self {
                    $(Self::$constant => $constant_range,)*
                }
            }

            /// Meaning of the column, and its unit.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$constant => const { purpose(concat!($($constant_doc),*)) },)*
                }
            }
        }

        impl TokenStatistics {
            /// Values of a column.
            pub fn column(&self, statistic: Statistic) -> &[f64] {
                match statistic {
                    $(Statistic::$statistic => &self.$own,)*
                }
            }

            /// Values of a column, for writing.
            pub fn column_mut(&mut self, statistic: Statistic) -> &mut Vec<f64> {
                match statistic {
                    $(Statistic::$statistic => &mut self.$own,)*
                }
            }

            /// Borrows the columns.
            pub(crate) fn cotangents(&self) -> Cotangents<'_> {
                Cotangents { $($own: &self.$own),* }
            }
        }

        impl TokenConstants {
            /// Values of a column.
            pub fn column(&self, constant: Constant) -> &[f64] {
                match constant {
                    $(Constant::$constant => &self.$held,)*
                }
            }

            /// Values of a column, for writing.
            pub fn column_mut(&mut self, constant: Constant) -> &mut Vec<f64> {
                match constant {
                    $(Constant::$constant => &mut self.$held,)*
                }
            }
        }

        impl<'a> Side<'a> {
            /// Responses of these lengths without columns.
            pub fn of(lengths: &'a [usize]) -> Self {
                Self { lengths, ..Self::default() }
            }

            /// Borrows the columns of a host.
            pub(crate) fn borrow(statistics: &'a TokenStatistics, constants: &'a TokenConstants) -> Self {
                Self { lengths: &[], $($own: &statistics.$own,)* $($held: &constants.$held),* }
            }

            pub(crate) fn statistic(&self, statistic: Statistic) -> &'a [f64] {
                match statistic {
                    $(Statistic::$statistic => self.$own,)*
                }
            }

            pub(crate) fn constant(&self, constant: Constant) -> &'a [f64] {
                match constant {
                    $(Constant::$constant => self.$held,)*
                }
            }
        }

        impl<'a> Cotangents<'a> {
            /// Splits the columns after this many tokens.
            pub(crate) fn split_at(self, tokens: usize) -> (Self, Self) {
                let split = |column: &'a [f64]| column.split_at(tokens.min(column.len()));
                (Self { $($own: split(self.$own).0),* }, Self { $($own: split(self.$own).1),* })
            }
        }
    };
}

columns! {
    statistics {
        /// log π(yₜ|sₜ) of the policy in training, nats.
        LogProb log_prob: -MOST..=0.0,
        /// KL(π_ref || π) at sₜ, nats.
        ReferenceKl reference_kl: 0.0..=MOST,
        /// −Σₐ π(a|sₜ) log π(a|sₜ), nats.
        Entropy entropy: 0.0..=MOST,
        /// V(sₜ), in units of reward.
        Value value: -MOST..=MOST,
        /// log Σₐ π(a|sₜ)², nats. No distribution over fewer than 2⁹² outcomes is flatter than −64.
        LogSumSquareProb log_sum_square_prob: -64.0..=0.0,
        /// Divergence of the policy from a teacher at sₜ, nats; the requirements name its kind.
        TeacherDivergence teacher_divergence: 0.0..=MOST,
        /// Score of the response up to and including yₜ, in units of reward.
        Score score: -MOST..=MOST,
    }
    constants {
        /// log π_ref(yₜ|sₜ) of the frozen reference policy, nats.
        ReferenceLogProb reference_log_prob: -MOST..=0.0,
        /// log π(yₜ|sₜ) of the policy that generated the response, as the trainer computes it, nats.
        BehaviourLogProb behaviour_log_prob: -MOST..=0.0,
        /// log π(yₜ|sₜ) of the policy that generated the response, as its sampler reported it, nats.
        RolloutLogProb rollout_log_prob: -MOST..=0.0,
        /// V(sₜ) when the response was sampled, in units of reward.
        BehaviourValue behaviour_value: -MOST..=MOST,
        /// Advantage of yₜ over the policy's average action at sₜ; one number per token, or one per response.
        Advantage advantage: -MOST..=MOST,
        /// The return that V(sₜ) is fitted to, in units of reward.
        Return returns: -MOST..=MOST,
        /// log π_teacher(yₜ|sₜ) of the teacher, nats.
        TeacherLogProb teacher_log_prob: -MOST..=0.0,
        /// Weight of a response, or for a chosen response, of its pair: one number per response. If the column is
        /// empty, all weights are 1.
        Weight weight: 0.0..=MOST,
        /// Rewards of all responses, concatenated, with the same number for each response and in any unit; NaN means no
        /// reward.
        Reward reward: -MOST..=MOST,
    }
}

impl Statistic {
    /// Name of the column.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Constant {
    /// Name of the column.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Cotangents are written from the first token to the last. A slot is initialised when it is first written, while its
/// memory is in the processor's first cache. A separate pass that writes zeros would take as long as a whole loss.
impl TokenStatistics {
    /// Removes all slots, and reserves memory for this many in the columns of these statistics.
    pub(crate) fn clear(&mut self, statistics: EnumSet<Statistic>, tokens: usize) {
        EnumSet::all().iter().for_each(|statistic| self.column_mut(statistic).clear());
        statistics.iter().for_each(|statistic| self.column_mut(statistic).reserve(tokens));
    }

    /// The slots of these tokens: 0 where nothing has been added.
    pub(crate) fn slots(&mut self, statistic: Statistic, tokens: Range<usize>) -> &mut [f64] {
        let column = self.column_mut(statistic);
        if column.len() < tokens.end {
            column.resize(tokens.end, 0.0);
        }
        &mut column[tokens]
    }

    /// Adds a number to the slots of these tokens.
    pub(crate) fn add(&mut self, statistic: Statistic, tokens: Range<usize>, value: f64) {
        let column = self.column_mut(statistic);
        if column.len() == tokens.start {
            column.resize(tokens.end, 0.0 + value);
        } else {
            self.slots(statistic, tokens).iter_mut().for_each(|slot| *slot += value);
        }
    }

    /// Fills the columns of these statistics with zeros, from the last slot that was written to the last token.
    pub(crate) fn fill_up(&mut self, statistics: EnumSet<Statistic>, tokens: usize) {
        statistics.iter().for_each(|statistic| self.column_mut(statistic).resize(tokens, 0.0));
    }
}
