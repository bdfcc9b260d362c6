//! Records as micro-batches: the sequences that go through the model, and the known quantities of their responses.

use enumset::EnumSet;
use objective::{Constant, Data, Feedback, Pair, Requirements, Response, TokenConstants};
use text::data::Record;
use text::error::{TextError, refuse};
use text::example::Example;
use training::MicroBatch;

use crate::error::LmError;
use crate::train::policy::Forward;
use crate::transformer::batch::{Packing, Sequence, States};
use crate::transformer::model::Transformer;

/// A micro-batch of the language model's policy.
pub type LmMicroBatch = MicroBatch<States, Forward>;

/// Sequences of a micro-batch before conversion to tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan<'a> {
    /// Sequences in the order of the responses.
    pub sequences: Vec<Sequence<'a>>,
    /// Feedback on each response.
    pub feedback: Vec<Feedback>,
    /// Pairs of responses, by index.
    pub pairs: Vec<Pair>,
    /// Columns that the objective reads and the records contain. Log-probabilities of the behaviour policy are NaN if a
    /// record does not have them.
    pub constants: TokenConstants,
}

/// Splits the records of one step into micro-batches of `size` records.
///
/// If an objective compares labelled responses with mismatched ones, each record has the response of the step's next
/// record beside it, so that comparisons do not depend on the split.
///
/// # Errors
///
/// [`TextError::Record`] for a record of another kind than the objective learns from or without a column that it reads,
/// for groups with different numbers of rewards, and for a step too small to have mismatched responses.
pub fn plan<'a>(
    requirements: &Requirements,
    records: &[&'a Record<Example>],
    size: usize,
) -> Result<Vec<Plan<'a>>, TextError> {
    let (mut group, mut rewards) = (0, requirements.rewards);
    let mut plans = Vec::with_capacity(records.len().div_ceil(size));
    for (index, record) in records.iter().enumerate() {
        if index % size == 0 {
            plans.push(Plan::default());
        }
        let Some(plan) = plans.last_mut() else { continue };
        match (requirements.data, record) {
            (Data::Demonstrations, Record::Demonstration(example)) => plan.push(example, Feedback::None),
            (Data::Preferences, Record::Preference { chosen, rejected }) => {
                let first = plan.sequences.len();
                plan.push(chosen, Feedback::None);
                plan.push(rejected, Feedback::None);
                plan.pairs.push(Pair { chosen: first, rejected: first + 1 });
            }
            (Data::Labelled { mismatched }, Record::Labelled { response, desirable }) => {
                plan.push(response, if *desirable { Feedback::Desirable } else { Feedback::Undesirable });
                if mismatched {
                    let Record::Labelled { response: next, .. } = records[(index + 1) % records.len()] else {
                        return Err(unlike(requirements.data, records[(index + 1) % records.len()]));
                    };
                    if records.len() == 1 {
                        return Err(refuse("batch", "at least 2, as responses are compared with those of others", 1));
                    }
                    plan.sequences.push(Sequence { prompt: &response.prompt, response: &next.response });
                    plan.feedback.push(Feedback::Mismatched);
                }
            }
            (Data::Groups, Record::Group(responses)) => {
                for (example, known) in responses {
                    plan.push(example, Feedback::Group(group));
                    for constant in requirements.constants & known_of_groups() {
                        fill(constant, example.response.len(), known, rewards, plan.constants.column_mut(constant))?;
                    }
                    rewards = rewards.or(Some(known.reward.len()));
                }
                group += 1;
            }
            (data, record) => return Err(unlike(data, record)),
        }
    }
    Ok(plans)
}

/// Columns that a group may contain.
fn known_of_groups() -> EnumSet<Constant> {
    Constant::Reward | Constant::Advantage | Constant::BehaviourLogProb | Constant::RolloutLogProb
}

/// Appends a response's values to a column: `rewards` numbers if that count is known, or one number per token.
fn fill(
    constant: Constant,
    tokens: usize,
    known: &TokenConstants,
    rewards: Option<usize>,
    column: &mut Vec<f64>,
) -> Result<(), TextError> {
    let given = known.column(constant);
    let (name, allowed) = match (constant, given) {
        (Constant::Reward, [_, ..]) if rewards.is_none_or(|rewards| given.len() == rewards) => {
            column.extend(given);
            return Ok(());
        }
        (Constant::Reward, _) => (
            "rewards",
            match rewards {
                Some(rewards) => format!("{rewards} for each response, like the method or an earlier record"),
                None => "at least 1 for each response, as the method compares them".to_owned(),
            },
        ),
        (Constant::Advantage, &[one]) => {
            column.resize(column.len() + tokens, one);
            return Ok(());
        }
        (Constant::BehaviourLogProb, []) => {
            column.resize(column.len() + tokens, f64::NAN);
            return Ok(());
        }
        _ if given.len() == tokens => {
            column.extend(given);
            return Ok(());
        }
        _ => (constant.name(), format!("{tokens} numbers, one for each token of a response, as the method reads them")),
    };
    Err(refuse(name, allowed, given.len()))
}

fn unlike(data: Data, record: &Record<Example>) -> TextError {
    let given = match record {
        Record::Demonstration(_) => "a demonstration",
        Record::Preference { .. } => "a pair; learnt = \"chosen\" makes a demonstration of its better response",
        Record::Labelled { .. } => "a labelled response",
        Record::Group(_) => "a group of responses",
    };
    refuse("record", format!("one of {}, as the method learns from them", <&str>::from(data)), given)
}

impl<'a> Plan<'a> {
    fn push(&mut self, example: &'a Example, feedback: Feedback) {
        self.sequences.push(Sequence { prompt: &example.prompt, response: &example.response });
        self.feedback.push(feedback);
    }

    /// Number of tokens of each response.
    pub fn tokens(&self) -> Vec<usize> {
        self.sequences.iter().flat_map(|sequence| sequence.response).map(|token| *token as usize).collect()
    }

    /// Converts the plan to tensors on the model's device, without constants.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn micro_batch(&self, model: &Transformer, packing: Packing) -> Result<LmMicroBatch, LmError> {
        let mut end = 0;
        let responses = self.sequences.iter().zip(&self.feedback).map(|(sequence, feedback)| {
            let begin = end;
            end += sequence.response.len();
            Response { tokens: begin..end, feedback: *feedback }
        });
        Ok(MicroBatch {
            responses: responses.collect(),
            states: States::new(model, &self.sequences, packing)?,
            reference: None,
            teacher: None,
            tokens: self.tokens(),
            pairs: self.pairs.clone(),
            constants: self.constants.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use objective::{Parameters, registry};

    use super::*;

    fn example(prompt: u32, response: &[u32]) -> Example {
        Example { prompt: vec![prompt], response: response.to_vec(), end: 0 }
    }

    fn requirements(name: &str) -> Requirements {
        registry::build(name, &Parameters::new()).unwrap().requirements()
    }

    #[test]
    fn mismatched_responses_are_those_of_the_next_record_whatever_the_split() {
        let records: Vec<_> = (0..3_u32)
            .map(|index| Record::Labelled { response: example(index, &[10 + index]), desirable: index == 1 })
            .collect();
        let records: Vec<_> = records.iter().collect();
        let sequences = |size| -> Vec<_> {
            let plans = plan(&requirements("kto"), &records, size).unwrap();
            plans.iter().flat_map(|plan| plan.sequences.clone()).map(|s| (s.prompt[0], s.response[0])).collect()
        };
        let expected = [(0, 10), (0, 11), (1, 11), (1, 12), (2, 12), (2, 10)];
        for size in 1..=4 {
            assert_eq!(sequences(size), expected);
        }
        let error = plan(&requirements("kto"), &records[..1], 1).unwrap_err().to_string();
        assert_eq!(error, "batch: expected at least 2, as responses are compared with those of others, got 1");
    }

    fn rewarded(reward: &[f64]) -> TokenConstants {
        TokenConstants { reward: reward.to_vec(), ..TokenConstants::default() }
    }

    #[test]
    fn groups_are_numbered_through_the_step() {
        let records = [4.0, 5.0].map(|reward| {
            Record::Group(vec![(example(1, &[2]), rewarded(&[reward])), (example(1, &[3]), rewarded(&[0.0]))])
        });
        let plans = plan(&requirements("grpo"), &records.iter().collect::<Vec<_>>(), 1).unwrap();
        let groups: Vec<_> = plans.iter().map(|plan| (plan.feedback[0], plan.constants.reward.clone())).collect();
        assert_eq!(groups, [(Feedback::Group(0), vec![4.0, 0.0]), (Feedback::Group(1), vec![5.0, 0.0])]);
    }

    fn policy_gradient(parameters: &[(&str, &str)]) -> Requirements {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        registry::build("policy_gradient", &parameters).unwrap().requirements()
    }

    #[test]
    fn an_advantage_of_a_response_is_that_of_each_of_its_tokens() {
        let known = |advantage: &[f64], rollout_log_prob: &[f64]| TokenConstants {
            advantage: advantage.to_vec(),
            rollout_log_prob: rollout_log_prob.to_vec(),
            ..TokenConstants::default()
        };
        let group = Record::Group(vec![
            (example(1, &[2, 3]), known(&[0.5], &[-1.0, -2.0])),
            (example(1, &[4, 5]), known(&[-1.0, 1.0], &[-3.0, -4.0])),
        ]);
        let requirements = policy_gradient(&[("advantage", "given"), ("correction", "truncate_token")]);
        let constants = plan(&requirements, &[&group], 1).unwrap().remove(0).constants;
        assert_eq!(constants.advantage, [0.5, 0.5, -1.0, 1.0]);
        assert_eq!(constants.rollout_log_prob, [-1.0, -2.0, -3.0, -4.0]);
        assert!(constants.behaviour_log_prob.iter().all(|log_prob| log_prob.is_nan()));
        assert_eq!((constants.behaviour_log_prob.len(), constants.reward.len()), (4, 0));
    }

    #[test]
    fn groups_without_a_column_that_the_method_reads_are_refused_by_its_name() {
        let group = |known: TokenConstants| {
            Record::Group(vec![(example(1, &[2, 3]), known.clone()), (example(1, &[4, 5]), known)])
        };
        let refused = |parameters: &[(&str, &str)], records: &[&Record<Example>]| {
            plan(&policy_gradient(parameters), records, 1).unwrap_err().to_string()
        };
        let one = group(rewarded(&[1.0]));
        let each = "expected 2 numbers, one for each token of a response, as the method reads them, got 0";
        assert_eq!(refused(&[("advantage", "given")], &[&one]), format!("advantage: {each}"));
        assert_eq!(refused(&[("correction", "icepop")], &[&one]), format!("rollout_log_prob: {each}"));
        let none = group(TokenConstants { advantage: vec![1.0], ..TokenConstants::default() });
        assert_eq!(
            refused(&[], &[&none]),
            "rewards: expected at least 1 for each response, as the method compares them, got 0"
        );
        let two = group(rewarded(&[1.0, 2.0]));
        let expected = "rewards: expected 1 for each response, like the method or an earlier record, got 2";
        assert_eq!(refused(&[], &[&one, &two]), expected);
    }

    #[test]
    fn a_record_of_another_kind_is_refused_with_the_way_out() {
        let pair = Record::Preference { chosen: example(1, &[2]), rejected: example(1, &[3]) };
        let error = plan(&requirements("sft"), &[&pair], 1).unwrap_err().to_string();
        let expected = "record: expected one of demonstrations, as the method learns from them, got a pair; learnt = \"chosen\" \
                        makes a demonstration of its better response";
        assert_eq!(error, expected);
    }
}
