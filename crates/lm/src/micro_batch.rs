//! Records as micro-batches: which sequences go through the model, and what is known of their responses.

use objective::{Constant, Data, Feedback, Pair, Requirements, Response, TokenConstants};
use training::MicroBatch;

use crate::batch::{Packing, Sequence, States};
use crate::data::Record;
use crate::error::{LmError, refuse};
use crate::example::Example;
use crate::model::Transformer;
use crate::policy::Forward;

/// A part of a step as the policy takes it.
pub type LmMicroBatch = MicroBatch<States, Forward>;

/// The sequences of a micro-batch before they are tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan<'a> {
    /// In the order of the responses.
    pub sequences: Vec<Sequence<'a>>,
    /// What is known of each response.
    pub feedback: Vec<Feedback>,
    /// Pairs of responses.
    pub pairs: Vec<Pair>,
    /// Rewards of the responses, where the objective learns from them.
    pub rewards: Vec<f64>,
}

/// The micro-batches of one step over records, `size` records in each.
///
/// A labelled response that an objective compares with mismatched ones has the response of the step's next record beside it, so
/// that what is compared does not depend on the split.
///
/// # Errors
///
/// [`LmError::Record`] for a record of another kind than the objective learns from, and for a step too small to have mismatched
/// responses.
pub fn plan<'a>(
    requirements: &Requirements,
    records: &[&'a Record<Example>],
    size: usize,
) -> Result<Vec<Plan<'a>>, LmError> {
    let mut group = 0;
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
                for (example, reward) in responses {
                    plan.push(example, Feedback::Group(group));
                    if requirements.constants.contains(Constant::Reward) {
                        plan.rewards.push(*reward);
                    }
                }
                group += 1;
            }
            (data, record) => return Err(unlike(data, record)),
        }
    }
    Ok(plans)
}

fn unlike(data: Data, record: &Record<Example>) -> LmError {
    let given = match record {
        Record::Demonstration(_) => "a demonstration",
        Record::Preference { .. } => "a pair; learnt = \"chosen\" makes a demonstration of its better response",
        Record::Labelled { .. } => "a labelled response",
        Record::Group(_) => "a group with rewards",
    };
    refuse("record", format!("one of {}, as the method learns from them", <&str>::from(data)), given)
}

impl<'a> Plan<'a> {
    fn push(&mut self, example: &'a Example, feedback: Feedback) {
        self.sequences.push(Sequence { prompt: &example.prompt, response: &example.response });
        self.feedback.push(feedback);
    }

    /// The tokens of all responses.
    pub fn tokens(&self) -> Vec<usize> {
        self.sequences.iter().flat_map(|sequence| sequence.response).map(|token| *token as usize).collect()
    }

    /// The plan as tensors on the model's device, without constants.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
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
            constants: TokenConstants { reward: self.rewards.clone(), ..TokenConstants::default() },
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

    #[test]
    fn groups_are_numbered_through_the_step() {
        let records = [4.0, 5.0].map(|reward| Record::Group(vec![(example(1, &[2]), reward), (example(1, &[3]), 0.0)]));
        let plans = plan(&requirements("grpo"), &records.iter().collect::<Vec<_>>(), 1).unwrap();
        let groups: Vec<_> = plans.iter().map(|plan| (plan.feedback[0], plan.rewards.clone())).collect();
        assert_eq!(groups, [(Feedback::Group(0), vec![4.0, 0.0]), (Feedback::Group(1), vec![5.0, 0.0])]);
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
