//! Layouts of a line: the fields of each, and the records that they become.

use objective::{Constant, TokenConstants};
use serde_json::{Map, Value};

use super::field::{Content, content, content_of, ids, ids_of, list, number_of, verdict};
use super::unusable::Unusable;
use super::{Learnt, Record};
use crate::chat::{Message, Role};
use crate::error::{TextError, refuse};
use crate::example::Passage;

/// A line's JSON object.
type Fields = Map<String, Value>;
/// Records of a line.
type Records = Result<Vec<Record<Passage>>, TextError>;

/// A layout: a set of fields that describes a record.
struct Layout {
    /// Fields that identify the layout: a line that has one of them has this layout.
    signs: &'static [&'static str],
    /// All fields that the layout allows.
    known: &'static [&'static str],
    /// Conversion of the fields to records.
    read: fn(&Fields, Learnt) -> Records,
}

/// Layouts in their order of precedence. A line has the first layout that one of its fields identifies, or else the
/// last layout.
const LAYOUTS: [Layout; 7] = [
    Layout {
        signs: &["chosen", "rejected"],
        known: &["prompt", "chosen", "rejected", "messages"],
        read: |fields, _| Ok(vec![preference(fields)?]),
    },
    Layout {
        signs: &["chosen_ids", "rejected_ids"],
        known: &["prompt_ids", "chosen_ids", "rejected_ids"],
        read: |fields, _| Ok(vec![preference_of_ids(fields)?]),
    },
    Layout { signs: &["messages"], known: &["messages", "prompt"], read: demonstrations },
    Layout {
        signs: &["completions"],
        known: &["prompt", "completions", "rewards", "advantage"],
        read: |fields, _| Ok(vec![group(fields)?]),
    },
    Layout {
        signs: &["completions_ids"],
        known: &["prompt_ids", "completions_ids", "rewards", "advantage", "behaviour_log_prob", "rollout_log_prob"],
        read: |fields, _| Ok(vec![group_of_ids(fields)?]),
    },
    Layout {
        signs: &["prompt_ids", "response_ids"],
        known: &["prompt_ids", "response_ids", "label"],
        read: |fields, _| Ok(vec![response_of_ids(fields)?]),
    },
    Layout {
        signs: &["prompt", "completion"],
        known: &["prompt", "completion", "label"],
        read: |fields, _| Ok(vec![response(fields)?]),
    },
];

/// Metadata fields of data sets on the hub, which are ignored.
const ABOUT: [&str; 3] = ["prompt_id", "score_chosen", "score_rejected"];

/// Whether any layout allows a field of this name.
pub(super) fn is_read(field: &str) -> bool {
    LAYOUTS.iter().any(|layout| layout.known.contains(&field))
}

/// The records of one line.
pub(super) fn records(fields: &Fields, learnt: Learnt) -> Records {
    let [first @ .., last] = &LAYOUTS;
    let layout = first.iter().find(|layout| layout.signs.iter().any(|sign| fields.contains_key(*sign))).unwrap_or(last);
    if let Some(unknown) =
        fields.keys().map(String::as_str).find(|field| !layout.known.contains(field) && !ABOUT.contains(field))
    {
        let allowed = format!("one of the fields {}", layout.known.join(", "));
        return Err(refuse(unknown, allowed, "an unknown field"));
    }
    if learnt == Learnt::Chosen && !layout.known.iter().any(|field| ["chosen", "chosen_ids"].contains(field)) {
        return Err(refuse("chosen", "a response, as the chosen responses are learned", "nothing"));
    }
    let mut records = (layout.read)(fields, learnt)?;
    if learnt == Learnt::Chosen {
        records = records.into_iter().map(preferred).collect();
    }
    Ok(records)
}

fn preferred(record: Record<Passage>) -> Record<Passage> {
    match record {
        Record::Preference { chosen, .. } => Record::Demonstration(chosen),
        other => other,
    }
}

fn response(fields: &Fields) -> Result<Record<Passage>, TextError> {
    let prompt = content(fields, "prompt")?;
    judged(fields, passage(&prompt, content(fields, "completion")?, "completion")?)
}

fn response_of_ids(fields: &Fields) -> Result<Record<Passage>, TextError> {
    judged(fields, Passage::Ids { prompt: ids(fields, "prompt_ids")?, response: ids(fields, "response_ids")? })
}

/// Converts a response to a demonstration, or with a label to a labelled response.
fn judged(fields: &Fields, response: Passage) -> Result<Record<Passage>, TextError> {
    if fields.contains_key("label") {
        Ok(Record::Labelled { response, desirable: verdict(fields, "label")? })
    } else {
        Ok(Record::Demonstration(response))
    }
}

fn group(fields: &Fields) -> Result<Record<Passage>, TextError> {
    let prompt = content(fields, "prompt")?;
    sampled(fields, "completions", |value, place| passage(&prompt, content_of(Some(value), place)?, place))
}

fn group_of_ids(fields: &Fields) -> Result<Record<Passage>, TextError> {
    let prompt = ids(fields, "prompt_ids")?;
    sampled(fields, "completions_ids", |value, place| {
        Ok(Passage::Ids { prompt: prompt.clone(), response: ids_of(Some(value), place)? })
    })
}

fn sampled(
    fields: &Fields,
    field: &str,
    response: impl Fn(&Value, &str) -> Result<Passage, TextError>,
) -> Result<Record<Passage>, TextError> {
    let responses: Vec<_> = list(fields, field, "a list of responses")?
        .iter()
        .enumerate()
        .map(|(index, value)| response(value, &format!("{field}[{index}]")))
        .collect::<Result<_, _>>()?;
    let is_rewarded = fields.contains_key("rewards") || !fields.contains_key("advantage");
    if responses.len() < 2 && is_rewarded {
        return Err(refuse(field, "at least 2 responses, as each reward is compared with the others", responses.len()));
    }
    if responses.is_empty() {
        return Err(refuse(field, "at least 1 response", 0));
    }
    let mut group: Vec<_> = responses.into_iter().map(|response| (response, TokenConstants::default())).collect();
    if is_rewarded {
        rewards(fields, field, &mut group)?;
    }
    for constant in [Constant::Advantage, Constant::BehaviourLogProb, Constant::RolloutLogProb] {
        if fields.contains_key(constant.name()) {
            column(fields, constant, field, &mut group)?;
        }
    }
    Ok(Record::Group(group))
}

/// Reads a list with one entry for each response.
fn entries<'a>(fields: &'a Fields, name: &str, of: &str, responses: usize) -> Result<&'a Vec<Value>, TextError> {
    let entries = list(fields, name, "a list of numbers")?;
    match entries.len() {
        given if given == responses => Ok(entries),
        given => Err(refuse(name, format!("{responses} numbers, one for each of {of}"), given)),
    }
}

/// Reads the rewards of each response: one number, or a list of numbers with the same length for all responses, in
/// which null means no reward.
fn rewards(fields: &Fields, of: &str, group: &mut [(Passage, TokenConstants)]) -> Result<(), TextError> {
    let mut each = None;
    for (index, (value, (_, known))) in entries(fields, "rewards", of, group.len())?.iter().zip(group).enumerate() {
        let place = format!("rewards[{index}]");
        known.reward = match value {
            Value::Array(values) if values.is_empty() => return Err(refuse(&place, "at least 1 number", "none")),
            Value::Array(values) => numbers(values, &place, |value, place| match value {
                Value::Null => Ok(f64::NAN),
                value => number_of(value, place, Constant::Reward),
            })?,
            value => vec![number_of(value, &place, Constant::Reward)?],
        };
        let (each, given) = (*each.get_or_insert(known.reward.len()), known.reward.len());
        if given != each {
            return Err(refuse(&place, format!("{each} numbers, as rewards[0] has"), given));
        }
    }
    Ok(())
}

/// Reads a number for each token of each response; an advantage may also be one number for the whole response.
fn column(
    fields: &Fields,
    constant: Constant,
    of: &str,
    group: &mut [(Passage, TokenConstants)],
) -> Result<(), TextError> {
    let name = constant.name();
    for (index, (value, (passage, known))) in entries(fields, name, of, group.len())?.iter().zip(group).enumerate() {
        let place = format!("{name}[{index}]");
        *known.column_mut(constant) = match (value, passage) {
            (Value::Array(values), Passage::Ids { response, .. }) if values.len() == response.len() => {
                numbers(values, &place, |value, place| number_of(value, place, constant))?
            }
            (Value::Array(values), Passage::Ids { response, .. }) => {
                let allowed = format!("{} numbers, one for each token of {of}[{index}]", response.len());
                return Err(refuse(&place, allowed, values.len()));
            }
            (value, _) if constant == Constant::Advantage => vec![number_of(value, &place, constant)?],
            (value, _) => return Err(refuse(&place, "a list of numbers", value)),
        };
    }
    Ok(())
}

fn numbers(
    values: &[Value],
    place: &str,
    number: impl Fn(&Value, &str) -> Result<f64, TextError>,
) -> Result<Vec<f64>, TextError> {
    values.iter().enumerate().map(|(index, value)| number(value, &format!("{place}[{index}]"))).collect()
}

fn preference_of_ids(fields: &Fields) -> Result<Record<Passage>, TextError> {
    let prompt = ids(fields, "prompt_ids")?;
    let response = |field| Ok::<_, TextError>(Passage::Ids { prompt: prompt.clone(), response: ids(fields, field)? });
    Ok(Record::Preference { chosen: response("chosen_ids")?, rejected: response("rejected_ids")? })
}

fn preference(fields: &Fields) -> Result<Record<Passage>, TextError> {
    let (chosen, rejected) = (content(fields, "chosen")?, content(fields, "rejected")?);
    if fields.contains_key("messages") {
        match (&chosen, content(fields, "messages")?) {
            (Content::Turns(chosen), Content::Turns(messages)) if *chosen == messages => {}
            _ => return Err(refuse("messages", "the turns of chosen, or the field to be absent", "others")),
        }
    }
    match (fields.contains_key("prompt"), chosen, rejected) {
        (false, Content::Turns(chosen), Content::Turns(rejected)) => shared(chosen, rejected),
        (false, ..) => Err(refuse("prompt", "text, as chosen and rejected are text", "nothing")),
        (true, chosen, rejected) => match (content(fields, "prompt")?, chosen, rejected) {
            // On the hub, lists hold the prompt too, and the field repeats it as text.
            (Content::Text(prompt), Content::Turns(chosen), Content::Turns(rejected)) => {
                repeats_the_user("chosen", &prompt, &chosen)?;
                shared(chosen, rejected)
            }
            (prompt, chosen, rejected) => Ok(Record::Preference {
                chosen: passage(&prompt, chosen, "chosen")?,
                rejected: passage(&prompt, rejected, "rejected")?,
            }),
        },
    }
}

fn demonstrations(fields: &Fields, learnt: Learnt) -> Records {
    let Content::Turns(messages) = content(fields, "messages")? else {
        return Err(refuse("messages", "a list of turns", "text"));
    };
    if fields.contains_key("prompt") {
        let Content::Text(prompt) = content(fields, "prompt")? else {
            return Err(refuse("prompt", "text beside messages", "a list of turns"));
        };
        repeats_the_user("messages", &prompt, &messages)?;
    }
    let ends: Vec<usize> = (0..messages.len()).filter(|&index| messages[index].role == Role::Assistant).collect();
    let demonstration = |index: usize| {
        let (prompt, response) = (messages[..index].to_vec(), vec![messages[index].clone()]);
        Record::Demonstration(Passage::Conversation { prompt, response })
    };
    if learnt == Learnt::Every {
        if ends.is_empty() {
            return Err(refuse("messages", "a turn of the assistant", "none"));
        }
        return Ok(ends.into_iter().map(demonstration).collect());
    }
    match ends.last() {
        Some(&last) if last + 1 == messages.len() => Ok(vec![demonstration(last)]),
        _ => Err(refuse("messages", "a last turn of the assistant", "a turn of another role, or none")),
    }
}

fn passage(prompt: &Content, response: Content, field: &str) -> Result<Passage, TextError> {
    match (prompt, response) {
        (Content::Text(prompt), Content::Text(response)) => Ok(Passage::Text { prompt: prompt.clone(), response }),
        (Content::Turns(prompt), Content::Turns(response)) => {
            Ok(Passage::Conversation { prompt: prompt.clone(), response })
        }
        (prompt, response) => Err(refuse(field, format!("{}, as prompt is", prompt.is()), response.is())),
    }
}

/// Splits two conversations into their common beginning, which is the prompt, and the two responses.
fn shared(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> Result<Record<Passage>, TextError> {
    let count = chosen.iter().zip(&rejected).take_while(|(chosen, rejected)| chosen == rejected).count();
    if count == 0 {
        return Err(refuse("rejected", "the first turn of chosen as its first turn", "another turn"));
    }
    let prompt: Vec<_> = chosen.drain(..count).collect();
    rejected.drain(..count);
    let kind = if chosen.is_empty() && rejected.is_empty() { Unusable::Equal } else { Unusable::Empty };
    for (field, other, rest) in [("chosen", "rejected", &chosen), ("rejected", "chosen", &rejected)] {
        if rest.is_empty() {
            let refused = refuse(field, format!("turns beyond the common beginning with {other}"), "none");
            return Err(kind.because(refused));
        }
    }
    Ok(Record::Preference {
        chosen: Passage::Conversation { prompt: prompt.clone(), response: chosen },
        rejected: Passage::Conversation { prompt, response: rejected },
    })
}

fn repeats_the_user(field: &str, prompt: &str, messages: &[Message]) -> Result<(), TextError> {
    match messages.iter().find(|message| message.role == Role::User) {
        Some(first) if first.content == prompt => Ok(()),
        _ => Err(refuse("prompt", format!("the first user's turn of {field}"), format!("{prompt:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_as(line: &Value, learnt: Learnt) -> Records {
        records(line.as_object().unwrap(), learnt)
    }

    fn read(line: &Value) -> Records {
        read_as(line, Learnt::Last)
    }

    fn user(content: &str) -> Message {
        Message { role: Role::User, content: content.to_owned() }
    }

    fn assistant(content: &str) -> Message {
        Message { role: Role::Assistant, content: content.to_owned() }
    }

    fn said(prompt: &[Message], response: &[Message]) -> Passage {
        Passage::Conversation { prompt: prompt.to_vec(), response: response.to_vec() }
    }

    fn text(prompt: &str, response: &str) -> Passage {
        Passage::Text { prompt: prompt.to_owned(), response: response.to_owned() }
    }

    fn rewarded(reward: f64) -> TokenConstants {
        TokenConstants { reward: vec![reward], ..TokenConstants::default() }
    }

    fn given(prompt: &[u32], response: &[u32]) -> Passage {
        Passage::Ids { prompt: prompt.to_vec(), response: response.to_vec() }
    }

    #[test]
    fn both_conventions_of_prompts_and_completions_are_read() {
        let plain = json!({"prompt": "The sky is", "completion": " blue."});
        assert_eq!(read(&plain).unwrap(), [Record::Demonstration(text("The sky is", " blue."))]);
        let turns = json!({"prompt": [user("hi")], "completion": [assistant("ho")]});
        assert_eq!(read(&turns).unwrap(), [Record::Demonstration(said(&[user("hi")], &[assistant("ho")]))]);
    }

    #[test]
    fn both_conventions_of_preferences_are_read() {
        let plain = json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."});
        let expected =
            Record::Preference { chosen: text("The sky is", " blue."), rejected: text("The sky is", " green.") };
        assert_eq!(read(&plain).unwrap(), [expected]);
        let expected = [Record::Preference {
            chosen: said(&[user("hi")], &[assistant("ho")]),
            rejected: said(&[user("hi")], &[assistant("no")]),
        }];
        let explicit = json!({"prompt": [user("hi")], "chosen": [assistant("ho")], "rejected": [assistant("no")]});
        assert_eq!(read(&explicit).unwrap(), expected);
        let (chosen, rejected) = ([user("hi"), assistant("ho")], [user("hi"), assistant("no")]);
        let implicit = json!({"chosen": chosen, "rejected": rejected});
        assert_eq!(read(&implicit).unwrap(), expected);
        let ultrafeedback = json!({"prompt": "hi", "prompt_id": "a", "chosen": chosen, "rejected": rejected,
            "messages": chosen, "score_chosen": 8.0, "score_rejected": 7.5});
        assert_eq!(read(&ultrafeedback).unwrap(), expected);
    }

    #[test]
    fn messages_are_one_demonstration_or_one_for_each_turn_of_the_assistant() {
        let messages = [user("1"), assistant("2"), user("3"), assistant("4")];
        let line = json!({"prompt": "1", "prompt_id": "a", "messages": messages});
        let last = Record::Demonstration(said(&messages[..3], &messages[3..]));
        assert_eq!(read_as(&line, Learnt::Last).unwrap(), std::slice::from_ref(&last));
        let first = Record::Demonstration(said(&messages[..1], &messages[1..2]));
        assert_eq!(read_as(&line, Learnt::Every).unwrap(), [first, last]);
    }

    #[test]
    fn what_is_unknown_missing_or_of_another_type_is_refused_by_name() {
        let fields = "chosen, rejected, messages";
        let roles = "system, developer, user, assistant, tool";
        let turns = json!([user("hi"), assistant("ho")]);
        let cases = [
            (json!({}), "prompt: expected text or a list of turns, got nothing".to_owned()),
            (json!({"prompt": "a"}), "completion: expected text or a list of turns, got nothing".to_owned()),
            (json!({"prompt": "a", "completion": 3}), "completion: expected text or a list of turns, got 3".to_owned()),
            (
                json!({"prompt": "a", "completion": null}),
                "completion: expected text or a list of turns, got null".to_owned(),
            ),
            (
                json!({"prompt": "a", "response": "b"}),
                "response: expected one of the fields prompt, completion, label, got an unknown field".to_owned(),
            ),
            (
                json!({"prompt": "a", "chosen": "b"}),
                "rejected: expected text or a list of turns, got nothing".to_owned(),
            ),
            (
                json!({"chosen": "b", "rejected": "c"}),
                "prompt: expected text, as chosen and rejected are text, got nothing".to_owned(),
            ),
            (
                json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1}),
                format!("margin: expected one of the fields prompt, {fields}, got an unknown field"),
            ),
            (
                json!({"prompt": "a", "completion": turns}),
                "completion: expected text, as prompt is, got a list of turns".to_owned(),
            ),
            (
                json!({"prompt": turns, "chosen": "b", "rejected": "c"}),
                "chosen: expected a list of turns, as prompt is, got text".to_owned(),
            ),
            (json!({"messages": "a"}), "messages: expected a list of turns, got text".to_owned()),
            (
                json!({"messages": []}),
                "messages: expected a last turn of the assistant, got a turn of another role, or none".to_owned(),
            ),
            (
                json!({"messages": [user("a")]}),
                "messages: expected a last turn of the assistant, got a turn of another role, or none".to_owned(),
            ),
            (
                json!({"messages": turns, "prompt": "ho"}),
                "prompt: expected the first user's turn of messages, got \"ho\"".to_owned(),
            ),
            (
                json!({"messages": ["a"]}),
                "messages[0]: expected a turn {\"role\": ..., \"content\": ...}, got \"a\"".to_owned(),
            ),
            (
                json!({"messages": [{"role": "bot", "content": "a"}]}),
                format!("messages[0].role: expected one of {roles}, got bot"),
            ),
            (
                json!({"messages": [{"content": "a"}]}),
                format!("messages[0].role: expected one of {roles}, got nothing"),
            ),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content: expected text, got nothing".to_owned()),
            (
                json!({"messages": [{"role": "user", "content": "a", "name": "b"}]}),
                "messages[0].name: expected one of the fields role, content, got an unknown field".to_owned(),
            ),
            (
                json!({"chosen": turns, "rejected": [assistant("no")]}),
                "rejected: expected the first turn of chosen as its first turn, got another turn".to_owned(),
            ),
            (
                json!({"chosen": turns, "rejected": turns}),
                "chosen: expected turns beyond the common beginning with rejected, got none".to_owned(),
            ),
            (
                json!({"chosen": turns, "rejected": [user("hi"), assistant("no")], "messages": [user("hi")]}),
                "messages: expected the turns of chosen, or the field to be absent, got others".to_owned(),
            ),
        ];
        for (line, message) in cases {
            assert_eq!(read(&line).unwrap_err().to_string(), message, "{line}");
        }
    }

    #[test]
    fn both_conventions_of_labelled_responses_are_read() {
        for desirable in [true, false] {
            let plain = json!({"prompt": "The sky is", "completion": " blue.", "label": desirable});
            let response = text("The sky is", " blue.");
            assert_eq!(read(&plain).unwrap(), [Record::Labelled { response, desirable }]);
            let turns = json!({"prompt": [user("hi")], "completion": [assistant("ho")], "label": desirable});
            let response = said(&[user("hi")], &[assistant("ho")]);
            assert_eq!(read(&turns).unwrap(), [Record::Labelled { response, desirable }]);
        }
    }

    #[test]
    fn both_conventions_of_groups_are_read() {
        let plain = json!({"prompt": "1 + 1 =", "completions": [" 2", " 3", " 2"], "rewards": [1, -0.5, 1.0]});
        let expected =
            [(" 2", 1.0), (" 3", -0.5), (" 2", 1.0)].map(|(said, reward)| (text("1 + 1 =", said), rewarded(reward)));
        assert_eq!(read(&plain).unwrap(), [Record::Group(expected.to_vec())]);
        let turns = json!({"prompt": [user("hi")], "completions": [[assistant("ho")], [assistant("no")]],
            "rewards": [1.0, 0.0]});
        let expected = [("ho", 1.0), ("no", 0.0)]
            .map(|(content, reward)| (said(&[user("hi")], &[assistant(content)]), rewarded(reward)));
        assert_eq!(read(&turns).unwrap(), [Record::Group(expected.to_vec())]);
    }

    #[test]
    fn ids_are_every_kind_of_record() {
        let line = json!({"prompt_ids": [0, 7], "response_ids": [u32::MAX]});
        let response = given(&[0, 7], &[u32::MAX]);
        assert_eq!(read(&line).unwrap(), [Record::Demonstration(response.clone())]);
        let line = json!({"prompt_ids": [0, 7], "response_ids": [u32::MAX], "label": false});
        assert_eq!(read(&line).unwrap(), [Record::Labelled { response, desirable: false }]);
        let (good, bad) = (given(&[1], &[2]), given(&[1], &[3, 4]));
        let line = json!({"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3, 4]});
        assert_eq!(read(&line).unwrap(), [Record::Preference { chosen: good.clone(), rejected: bad.clone() }]);
        let line = json!({"prompt_ids": [1], "completions_ids": [[2], [3, 4]], "rewards": [0.5, 0.25]});
        assert_eq!(read(&line).unwrap(), [Record::Group(vec![(good, rewarded(0.5)), (bad, rewarded(0.25))])]);
    }

    #[test]
    fn groups_hold_several_rewards_given_advantages_and_the_samplers_log_probabilities() {
        let line = json!({"prompt_ids": [1], "completions_ids": [[2], [3, 4]], "rewards": [[1, null], [0.5, -2]],
            "advantage": [0.5, [-1, 2]], "behaviour_log_prob": [[-0.5], [-1, 0]], "rollout_log_prob": [[-2], [-3, -4]]});
        let Record::Group(group) = read(&line).unwrap().remove(0) else { panic!("{line}") };
        let [(first, one), (second, two)] = &group[..] else { panic!("{line}") };
        assert_eq!((first, second), (&given(&[1], &[2]), &given(&[1], &[3, 4])));
        assert!(one.reward[0] == 1.0 && one.reward[1].is_nan(), "{:?}", one.reward);
        let expected = TokenConstants {
            reward: vec![0.5, -2.0],
            advantage: vec![-1.0, 2.0],
            behaviour_log_prob: vec![-1.0, 0.0],
            rollout_log_prob: vec![-3.0, -4.0],
            ..TokenConstants::default()
        };
        assert_eq!(two, &expected);
        assert_eq!((&one.advantage[..], &one.rollout_log_prob[..]), (&[0.5][..], &[-2.0][..]));
    }

    #[test]
    fn a_group_with_advantages_needs_neither_rewards_nor_a_second_response() {
        let known = TokenConstants { advantage: vec![-0.5], ..TokenConstants::default() };
        let line = json!({"prompt": "a", "completions": ["b"], "advantage": [-0.5]});
        assert_eq!(read(&line).unwrap(), [Record::Group(vec![(text("a", "b"), known)])]);
    }

    #[test]
    fn numbers_that_do_not_fit_their_responses_are_refused_by_name_and_response() {
        let good = json!({"prompt_ids": [1], "completions_ids": [[2], [3, 4]], "rewards": [1, 0]});
        for (field, value, message) in [
            ("advantage", json!([1]), "advantage: expected 2 numbers, one for each of completions_ids, got 1"),
            (
                "advantage",
                json!([1, [1]]),
                "advantage[1]: expected 2 numbers, one for each token of completions_ids[1], got 1",
            ),
            ("advantage", json!([1, null]), "advantage[1]: expected a number from -1e30 to 1e30, got null"),
            (
                "rollout_log_prob",
                json!([[-1, -1], [-1, -1]]),
                "rollout_log_prob[0]: expected 1 numbers, one for each token of completions_ids[0], got 2",
            ),
            ("rollout_log_prob", json!([-1, -1]), "rollout_log_prob[0]: expected a list of numbers, got -1"),
            (
                "behaviour_log_prob",
                json!([[-1], [-1, 0.5]]),
                "behaviour_log_prob[1][1]: expected a number from -1e30 to 0.0, got 0.5",
            ),
            ("rewards", json!([[1, 2], [1]]), "rewards[1]: expected 2 numbers, as rewards[0] has, got 1"),
            ("rewards", json!([[1], []]), "rewards[1]: expected at least 1 number, got none"),
            ("rewards", json!([[null], null]), "rewards[1]: expected a number from -1e30 to 1e30, got null"),
        ] {
            let mut line = good.clone();
            line[field] = value;
            assert_eq!(read(&line).unwrap_err().to_string(), message, "{line}");
        }
        let alone = json!({"prompt_ids": [1], "completions_ids": [], "advantage": []});
        assert_eq!(read(&alone).unwrap_err().to_string(), "completions_ids: expected at least 1 response, got 0");
        let words = json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1, 0], "advantage": [1, [1]]});
        assert_eq!(
            read(&words).unwrap_err().to_string(),
            "advantage[1]: expected a number from -1e30 to 1e30, got [1]"
        );
        let words =
            json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1, 0], "rollout_log_prob": [[-1], [-1]]});
        assert_eq!(
            read(&words).unwrap_err().to_string(),
            "rollout_log_prob: expected one of the fields prompt, completions, rewards, advantage, got an unknown field"
        );
    }

    #[test]
    fn preferences_are_demonstrations_where_their_chosen_responses_are_learnt() {
        let (chosen, rejected) = ([user("hi"), assistant("ho")], [user("hi"), assistant("no")]);
        let cases = [
            (json!({"prompt": "a", "chosen": "b", "rejected": "c"}), text("a", "b")),
            (json!({"chosen": chosen, "rejected": rejected}), said(&chosen[..1], &chosen[1..])),
            (json!({"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}), given(&[1], &[2])),
        ];
        for (line, expected) in cases {
            assert_eq!(read_as(&line, Learnt::Chosen).unwrap(), [Record::Demonstration(expected)], "{line}");
        }
        for line in [
            json!({}),
            json!({"prompt": "a", "completion": "b"}),
            json!({"messages": chosen}),
            json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1, 2]}),
            json!({"prompt_ids": [1], "response_ids": [2]}),
        ] {
            let refused = read_as(&line, Learnt::Chosen).unwrap_err().to_string();
            assert_eq!(
                refused, "chosen: expected a response, as the chosen responses are learned, got nothing",
                "{line}"
            );
        }
        let half = read_as(&json!({"prompt": "a", "chosen": "b"}), Learnt::Chosen).unwrap_err().to_string();
        assert_eq!(half, "rejected: expected text or a list of turns, got nothing");
    }

    #[test]
    fn labels_groups_and_ids_that_are_malformed_are_refused_by_name() {
        let id = "a token id, an integer from 0 to 4294967295";
        let cases = [
            (json!({"prompt": "a", "completion": "b", "label": 1}), "label: expected true or false, got 1"),
            (json!({"prompt": "a", "completion": "b", "label": null}), "label: expected true or false, got null"),
            (
                json!({"prompt": "a", "completion": "b", "rewards": [1, 2]}),
                "rewards: expected one of the fields prompt, completion, label, got an unknown field",
            ),
            (
                json!({"prompt": "a", "completions": "b", "rewards": [1]}),
                "completions: expected a list of responses, got \"b\"",
            ),
            (
                json!({"completions": ["b", "c"], "rewards": [1, 2]}),
                "prompt: expected text or a list of turns, got nothing",
            ),
            (
                json!({"prompt": "a", "completions": ["b", [assistant("c")]], "rewards": [1, 2]}),
                "completions[1]: expected text, as prompt is, got a list of turns",
            ),
            (
                json!({"prompt": [user("a")], "completions": [[assistant("b")], ["c"]], "rewards": [1, 2]}),
                "completions[1][0]: expected a turn {\"role\": ..., \"content\": ...}, got \"c\"",
            ),
            (
                json!({"prompt": "a", "completions": ["b", 3], "rewards": [1, 2]}),
                "completions[1]: expected text or a list of turns, got 3",
            ),
            (
                json!({"prompt": "a", "completions": ["b"], "rewards": [1]}),
                "completions: expected at least 2 responses, as each reward is compared with the others, got 1",
            ),
            (
                json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1]}),
                "rewards: expected 2 numbers, one for each of completions, got 1",
            ),
            (
                json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1, "2"]}),
                "rewards[1]: expected a number from -1e30 to 1e30, got \"2\"",
            ),
            (
                json!({"prompt": "a", "completions": ["b", "c"], "rewards": 1}),
                "rewards: expected a list of numbers, got 1",
            ),
            (json!({"prompt": "a", "completions": ["b", "c"]}), "rewards: expected a list of numbers, got nothing"),
            (
                json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1, 2], "label": true}),
                "label: expected one of the fields prompt, completions, rewards, advantage, got an unknown field",
            ),
            (json!({"prompt_ids": [1]}), "response_ids: expected a list of token ids, got nothing"),
            (json!({"response_ids": [1]}), "prompt_ids: expected a list of token ids, got nothing"),
            (json!({"prompt_ids": "a", "response_ids": [1]}), "prompt_ids: expected a list of token ids, got \"a\""),
            (json!({"prompt_ids": [], "response_ids": [1]}), "prompt_ids: expected at least 1 token id, got none"),
            (json!({"prompt_ids": [1], "response_ids": []}), "response_ids: expected at least 1 token id, got none"),
            (
                json!({"prompt_ids": [1], "chosen_ids": [1], "rejected_ids": []}),
                "rejected_ids: expected at least 1 token id, got none",
            ),
            (
                json!({"prompt_ids": [1], "response_ids": [1], "prompt": "a"}),
                "prompt: expected one of the fields prompt_ids, response_ids, label, got an unknown field",
            ),
            (json!({"prompt_ids": [1], "chosen_ids": [1]}), "rejected_ids: expected a list of token ids, got nothing"),
            (
                json!({"prompt_ids": [1], "chosen_ids": [1], "rejected_ids": [2], "label": true}),
                "label: expected one of the fields prompt_ids, chosen_ids, rejected_ids, got an unknown field",
            ),
            (
                json!({"prompt_ids": [1], "completions_ids": [[1], 2], "rewards": [1, 2]}),
                "completions_ids[1]: expected a list of token ids, got 2",
            ),
            (
                json!({"prompt_ids": [1], "completions_ids": [[1], []], "rewards": [1, 2]}),
                "completions_ids[1]: expected at least 1 token id, got none",
            ),
            (
                json!({"prompt_ids": [1], "completions_ids": [[1]], "rewards": [1]}),
                "completions_ids: expected at least 2 responses, as each reward is compared with the others, got 1",
            ),
            (
                json!({"prompt_ids": [1], "completions_ids": [[1], [2]], "rewards": [1, 2, 3]}),
                "rewards: expected 2 numbers, one for each of completions_ids, got 3",
            ),
        ];
        for (line, message) in cases {
            assert_eq!(read(&line).unwrap_err().to_string(), message, "{line}");
        }
        for wrong in [json!(-1), json!(1.0), json!(4_294_967_296_u64), json!("1"), json!(null)] {
            let line = json!({"prompt_ids": [1], "response_ids": [1, wrong]});
            assert_eq!(read(&line).unwrap_err().to_string(), format!("response_ids[1]: expected {id}, got {wrong}"));
        }
    }
}
