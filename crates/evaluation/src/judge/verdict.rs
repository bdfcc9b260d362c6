//! Verdicts of a judge, and their extraction from its answers.

use serde::{Deserialize, Serialize};

/// Preferred answer of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// Answer of the first file's model.
    A,
    /// Answer of the second file's model.
    B,
    /// Neither answer.
    #[serde(rename = "tie")]
    Tie,
}

/// Order in which a judge reads the answers of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The first file's answer first.
    AThenB,
    /// The second file's answer first.
    BThenA,
}

impl Order {
    /// Both orders, in which every pair is judged.
    pub const BOTH: [Self; 2] = [Self::AThenB, Self::BThenA];

    /// Reads the preferred answer from a judge's answer, or `None` if it contains no verdict.
    ///
    /// The last non-empty line of the answer is the verdict: `first`, `second` or `tie`, in any punctuation or markup,
    /// alone or after a label such as `Answer:`. A judge may therefore reason before its verdict, and the reasoning is
    /// never interpreted.
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

/// A line in lower case, without markup, and without the punctuation and white space around it.
fn bare(line: &str) -> String {
    let plain: String = line.chars().filter(|char| !"*_`".contains(*char)).collect();
    plain.trim_matches(|char: char| !char.is_alphanumeric()).to_lowercase()
}

/// Recorded answer of a judge to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Number of the pair, from 0, in the order of the first file.
    pub pair: usize,
    /// Order of the pair's answers in the question.
    pub order: Order,
    /// Preferred answer; `None` if the judge's answer contains no verdict.
    pub verdict: Option<Choice>,
    /// Text of the judge's answer.
    pub answer: String,
    /// Fingerprint of the question.
    pub fingerprint: String,
    /// Name of the model that answered, as the judge reports it.
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
