//! The five kinds of data that objectives learn from, over borrowed columns.

use crate::batch::{BatchError, Feedback, Layout, Pair, Response, StepTotals};
use crate::columns::{Cotangents, Side};

/// Responses to imitate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demonstrations<'a>(pub Side<'a>);

/// Pairs of responses to the same prompt: the n-th chosen one is better than the n-th rejected one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairs<'a> {
    /// The better responses.
    pub chosen: Side<'a>,
    /// The worse responses.
    pub rejected: Side<'a>,
}

/// Single responses labelled as desirable or undesirable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled<'a> {
    /// Responses to learn from.
    pub responses: Side<'a>,
    /// Label of each response: whether it is desirable.
    pub desirable: &'a [bool],
    /// Responses after prompts that they do not belong to, for `kto`; `Side::of(&[])` for other methods.
    pub mismatched: Side<'a>,
}

/// Sampled responses in groups, each group to one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups<'a> {
    /// Responses; those of a group are contiguous.
    pub responses: Side<'a>,
    /// Group of each response, numbered upwards. Empty if the objective needs none.
    pub group: &'a [usize],
    /// Rewards of all responses, concatenated, with the same number for each response and in any unit. NaN means no
    /// reward. Empty if advantages are given.
    pub reward: &'a [f64],
}

/// Sampled responses with an advantage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rollouts<'a>(pub Side<'a>);

/// Rollouts are groups without group numbers and rewards.
impl<'a> From<Rollouts<'a>> for Groups<'a> {
    fn from(Rollouts(responses): Rollouts<'a>) -> Self {
        Self { responses, group: &[], reward: &[] }
    }
}

/// Data of any kind, for an objective whose type is not known at compile time.
///
/// ```
/// use objective::{Batch, Evaluator, Demonstrations, Parameters, Side, registry};
///
/// let mut sft = Evaluator::new(registry::build("sft", &Parameters::new())?)?;
/// let demonstrations = Demonstrations(Side { log_prob: &[-0.5], ..Side::of(&[1]) });
/// assert_eq!(sft.evaluate(&Batch::from(demonstrations))?.loss, 0.5);
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Batch<'a> {
    /// Responses to imitate.
    Demonstrations(Demonstrations<'a>),
    /// Pairs of responses.
    Pairs(Pairs<'a>),
    /// Single responses with a label.
    Labelled(Labelled<'a>),
    /// Groups of sampled responses.
    Groups(Groups<'a>),
    /// Sampled responses with an advantage.
    Rollouts(Rollouts<'a>),
}

/// Cotangents of the two sides of [`Pairs`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairCotangents<'a> {
    /// Cotangents of the chosen responses.
    pub chosen: Cotangents<'a>,
    /// Cotangents of the rejected responses.
    pub rejected: Cotangents<'a>,
}

/// A kind of training data.
pub trait TrainingData: Copy {
    /// Arrangement of the cotangents of this kind of data.
    type Cotangents<'c>;

    /// Converts the data to a batch of any kind.
    fn batch(&self) -> Batch<'_>;

    /// Arranges concatenated cotangents, the first `first` tokens of which belong to the first side.
    fn arrange(all: Cotangents<'_>, first: usize) -> Self::Cotangents<'_>;
}

macro_rules! kinds {
    ($($kind:ident $cotangents:ident: |$all:ident, $first:ident| $arranged:expr;)*) => {$(
        #[automatically_derived]
        impl TrainingData for $kind<'_> {
            type Cotangents<'c> = $cotangents<'c>;

            fn batch(&self) -> Batch<'_> {
                Batch::$kind(*self)
            }

            fn arrange($all: Cotangents<'_>, $first: usize) -> Self::Cotangents<'_> {
                $arranged
            }
        }

        impl<'a> From<$kind<'a>> for Batch<'a> {
            fn from(data: $kind<'a>) -> Self {
                Self::$kind(data)
            }
        }
    )*};
}

kinds! {
    Demonstrations Cotangents: |all, _first| all;
    Pairs PairCotangents: |all, first| {
        let (chosen, rejected) = all.split_at(first);
        PairCotangents { chosen, rejected }
    };
    Labelled Cotangents: |all, first| all.split_at(first).0;
    Groups Cotangents: |all, _first| all;
    Rollouts Cotangents: |all, _first| all;
}

/// Cotangents of all tokens are concatenated: those of chosen responses before those of rejected ones, and those of
/// mismatched responses last.
impl TrainingData for Batch<'_> {
    type Cotangents<'c> = Cotangents<'c>;

    fn batch(&self) -> Batch<'_> {
        *self
    }

    fn arrange(all: Cotangents<'_>, _first: usize) -> Cotangents<'_> {
        all
    }
}

impl<'a> Batch<'a> {
    /// Name of the batch's kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Demonstrations(_) => "demonstrations",
            Self::Pairs(_) => "preferences",
            Self::Labelled(_) => "labelled",
            Self::Groups(_) => "groups",
            Self::Rollouts(_) => "rollouts",
        }
    }

    /// Counts of this batch as a part of a step. The sum over all parts is the argument of
    /// [`of_step`](crate::Evaluator::of_step).
    ///
    /// ```
    /// use objective::{Batch, Demonstrations, Side, StepTotals};
    ///
    /// let parts = [&[2, 1][..], &[3]].map(|lengths| Batch::from(Demonstrations(Side::of(lengths))));
    /// let totals: StepTotals = parts.iter().map(Batch::totals).sum();
    /// assert_eq!((totals.responses, totals.tokens), (3, 6));
    /// ```
    pub fn totals(&self) -> StepTotals {
        let [first, second] = self.sides();
        let sum = |side: Side<'_>| side.lengths.iter().fold(0, |sum: usize, length| sum.saturating_add(*length));
        let count = |tokens, responses| StepTotals { tokens, responses, ..StepTotals::default() };
        match self {
            Self::Pairs(_) => StepTotals {
                pairs: first.lengths.len(),
                chosen_tokens: sum(first),
                ..count(sum(first) + sum(second), first.lengths.len() + second.lengths.len())
            },
            Self::Groups(Groups { group, .. }) => {
                StepTotals { groups: group.chunk_by(|a, b| a == b).count(), ..count(sum(first), first.lengths.len()) }
            }
            _ => count(sum(first), first.lengths.len()),
        }
    }

    fn sides(&self) -> [Side<'a>; 2] {
        match *self {
            Self::Demonstrations(Demonstrations(side)) | Self::Rollouts(Rollouts(side)) => [side, Side::default()],
            Self::Pairs(Pairs { chosen, rejected }) => [chosen, rejected],
            Self::Labelled(Labelled { responses, mismatched, .. }) => [responses, mismatched],
            Self::Groups(Groups { responses, reward, .. }) => [Side { reward, ..responses }, Side::default()],
        }
    }

    /// Concatenates the responses.
    ///
    /// # Errors
    ///
    /// [`BatchError::Count`] if labels, rewards or rejected responses differ in number from the responses.
    pub(crate) fn lay_out<'b>(
        &self,
        responses: &'b mut Vec<Response>,
        pairs: &'b mut Vec<Pair>,
    ) -> Result<Layout<'b>, BatchError>
    where
        'a: 'b,
    {
        let sides = self.sides();
        let count = sides[0].lengths.len();
        let names = match self {
            Self::Pairs(_) => ["chosen.", "rejected."],
            Self::Labelled(_) => ["", "mismatched."],
            _ => ["", ""],
        };
        let expect = |field, each, given| match given == count {
            true => Ok(()),
            false => Err(BatchError::Count { field, expected: count, each, given }),
        };
        responses.clear();
        pairs.clear();
        let mut end = 0;
        let mut push = |length: usize, feedback: Feedback| {
            responses.push(Response { tokens: end..end.saturating_add(length), feedback });
            end = end.saturating_add(length);
        };
        match *self {
            Self::Demonstrations(_) | Self::Rollouts(_) => {
                sides[0].lengths.iter().for_each(|&length| push(length, Feedback::None));
            }
            Self::Pairs(_) => {
                expect("rejected.lengths", "a chosen response", sides[1].lengths.len())?;
                sides.iter().flat_map(|side| side.lengths).for_each(|&length| push(length, Feedback::None));
                pairs.extend((0..count).map(|pair| Pair { chosen: pair, rejected: count + pair }));
            }
            Self::Labelled(Labelled { desirable, .. }) => {
                expect("desirable", "a response", desirable.len())?;
                for (&length, &desirable) in sides[0].lengths.iter().zip(desirable) {
                    push(length, if desirable { Feedback::Desirable } else { Feedback::Undesirable });
                }
                sides[1].lengths.iter().for_each(|&length| push(length, Feedback::Mismatched));
            }
            Self::Groups(Groups { group: &[], .. }) => {
                sides[0].lengths.iter().for_each(|&length| push(length, Feedback::None));
            }
            Self::Groups(Groups { group, .. }) => {
                expect("group", "a response", group.len())?;
                for (&length, &group) in sides[0].lengths.iter().zip(group) {
                    push(length, Feedback::Group(group));
                }
            }
        }
        Ok(Layout { sides, names, first_responses: count, responses, pairs })
    }
}
