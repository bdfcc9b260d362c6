//! Who answered better, by a judge's answer.

use serde::{Deserialize, Serialize};

/// Who answered better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// The first file's model.
    A,
    /// The second file's.
    B,
    /// Neither.
    #[serde(rename = "tie")]
    Tie,
}

/// Whose answer is shown first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The first file's.
    AThenB,
    /// The second file's.
    BThenA,
}

impl Order {
    /// Both, as every pair is asked.
    pub const BOTH: [Self; 2] = [Self::AThenB, Self::BThenA];

    /// Who answered better by a judge's answer; none where it is no verdict.
    ///
    /// The last line of the answer that is not empty is the verdict: `first`, `second` or `tie`, in any punctuation or
    /// markup, alone or after a label such as `Answer:`. So a judge may reason before it, and nothing is guessed from
    /// its reasoning.
    pub fn read(self, answer: &str) -> Option<Choice> {
        let last = answer.lines().map(bare).rfind(|line| !line.is_empty())?;
        let word = match last.split_once(':') {
            Some((label, rest)) if LABELS.contains(&bare(label).as_str()) => bare(rest),
            _ => last,
        };
        match (word.as_str(), self) {
            ("tie", _) => Some(Choice::Tie),
            ("first", Self::AThenB) | ("second", Self::BThenA) => Some(Choice::A),
            ("second", Self::AThenB) | ("first", Self::BThenA) => Some(Choice::B),
            _ => None,
        }
    }
}

/// Labels that may precede a verdict.
const LABELS: [&str; 10] = [
    "answer",
    "final answer",
    "my answer",
    "verdict",
    "final verdict",
    "my verdict",
    "judgement",
    "judgment",
    "winner",
    "better answer",
];

/// A line in lower case, without the punctuation, markup and white space around it, and without markup in it.
fn bare(line: &str) -> String {
    let plain: String = line.chars().filter(|char| !"*_`".contains(*char)).collect();
    plain.trim_matches(|char: char| !char.is_alphanumeric()).to_lowercase()
}

/// What is recorded of a question that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The pair, from 0, in the order of the first file.
    pub pair: usize,
    /// Whose answer was shown first.
    pub order: Order,
    /// Who answered better; none where the judge's answer is no verdict.
    pub verdict: Option<Choice>,
    /// What the judge answered.
    pub answer: String,
    /// What was asked is known by this.
    pub fingerprint: String,
    /// The model that answered, as the judge names it.
    pub model: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_verdict_and_nothing_is_guessed() {
        let both = |answer: &str| Order::BOTH.map(|order| order.read(answer));
        assert_eq!(both("first"), [Some(Choice::A), Some(Choice::B)]);
        assert_eq!(both("second"), [Some(Choice::B), Some(Choice::A)]);
        assert_eq!(both(" Tie\n"), [Some(Choice::Tie); 2]);
        assert_eq!(both("The second is wrong.\n\nFirst\n\n"), [Some(Choice::A), Some(Choice::B)]);
        for answer in ["", "\n", "the first", "first second", "A", "1", "first\nI think", "not: first", "first: no"] {
            assert_eq!(both(answer), [None; 2], "{answer:?}");
        }
    }

    #[test]
    fn punctuation_markup_and_a_label_around_the_verdict_are_passed_over() {
        for answer in [
            "first.",
            "First!",
            "**first**",
            "**First.**",
            "`first`",
            "\"first\"",
            "[[first]]",
            "(first)",
            "# First",
            "- first",
            "Answer: first",
            "**Answer:** first",
            "**Answer**: **first**.",
            "Final verdict: \"first\"",
            "The first is better.\n\nAnswer: first\n\n---\n",
        ] {
            assert_eq!(Order::BOTH.map(|order| order.read(answer)), [Some(Choice::A), Some(Choice::B)], "{answer:?}");
        }
        assert_eq!(Order::AThenB.read("Answer: **second**"), Some(Choice::B));
        assert_eq!(Order::AThenB.read("_Tie._"), Some(Choice::Tie));
    }
}
