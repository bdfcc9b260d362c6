//! Questions to a judge: every pair of answers to one instruction, in both orders.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior};
use text::error::{TextError, refuse};

use super::verdict::Order;
use crate::outputs::{Output, Outputs};

/// Two answers to one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The first file's answer.
    pub a: &'a Output,
    /// The second file's answer.
    pub b: &'a Output,
}

/// Pairs the answers of two files by their instructions, in the order of the first file.
///
/// # Errors
///
/// [`TextError::Entry`] for an instruction that a file has twice, or that one file lacks.
pub fn pairs<'a>(a: &'a Outputs, b: &'a Outputs) -> Result<Vec<Pair<'a>>, TextError> {
    let (by_a, by_b) = (by_instruction(a)?, by_instruction(b)?);
    let lacks = |of: &Outputs, record: usize, answer: &Output, other: &Outputs| {
        let source = refuse("instruction", format!("one of {}", other.path.display()), shortened(&answer.instruction));
        TextError::entry(&of.path, record, source)
    };
    if let Some((record, answer)) = b.answers.iter().find(|(_, answer)| !by_a.contains_key(answer.instruction.as_str()))
    {
        return Err(lacks(b, *record, answer, a));
    }
    let pair = |(record, answer): &'a (usize, Output)| match by_b.get(answer.instruction.as_str()) {
        Some((_, other)) => Ok(Pair { a: answer, b: other }),
        None => Err(lacks(a, *record, answer, b)),
    };
    a.answers.iter().map(pair).collect()
}

fn by_instruction(outputs: &Outputs) -> Result<HashMap<&str, (usize, &Output)>, TextError> {
    let mut by_instruction = HashMap::new();
    for (record, answer) in &outputs.answers {
        if let Some((first, _)) = by_instruction.insert(answer.instruction.as_str(), (*record, answer)) {
            let allowed = format!("an instruction that no other record has, as record {first} does");
            let source = refuse("instruction", allowed, shortened(&answer.instruction));
            return Err(TextError::entry(&outputs.path, *record, source));
        }
    }
    Ok(by_instruction)
}

/// The beginning of an instruction, for an error message.
fn shortened(instruction: &str) -> String {
    const TOLD: usize = 60;
    match instruction.char_indices().nth(TOLD) {
        None => format!("{instruction:?}"),
        Some((end, _)) => format!("{:?}", format!("{}...", &instruction[..end])),
    }
}

/// Name of the built-in template.
const BUILT_IN: &str = "prompt.jinja";

/// Variables that a template must use.
const VARIABLES: [&str; 3] = ["first", "instruction", "second"];

/// Template of a question.
pub struct Template {
    environment: Environment<'static>,
    path: std::path::PathBuf,
    source: String,
}

impl Template {
    /// Reads the template in this file, or else the built-in template.
    ///
    /// # Errors
    ///
    /// [`TextError::File`] for a file that cannot be read; [`TextError::Template`] for a template that does not
    /// compile, that does not use `instruction`, `first` and `second`, or that uses any other variable.
    pub fn read(path: Option<&Path>) -> Result<Self, TextError> {
        match path {
            None => Self::new(Path::new(BUILT_IN), include_str!("prompt.jinja")),
            Some(path) => {
                let fail = |source| TextError::File { path: path.to_owned(), source };
                Self::new(path, &std::fs::read_to_string(path).map_err(fail)?)
            }
        }
    }

    fn new(path: &Path, source: &str) -> Result<Self, TextError> {
        let fail = |problem| TextError::Template { path: path.to_owned(), problem };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template_owned(BUILT_IN, source.to_owned()).map_err(|error| fail(error.to_string()))?;
        let template = environment.get_template(BUILT_IN).map_err(|error| fail(error.to_string()))?;
        let used: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
        if used != VARIABLES.map(str::to_owned).into() {
            let used = used.into_iter().collect::<Vec<_>>().join(", ");
            let used = if used.is_empty() { "none" } else { &used };
            return Err(fail(format!(
                "variables: expected a template that uses {} and no others, got {used}",
                VARIABLES.join(", ")
            )));
        }
        Ok(Self { environment, path: path.to_owned(), source: source.to_owned() })
    }

    /// Fingerprint of the template's source.
    pub fn fingerprint(&self) -> String {
        blake3::hash(self.source.as_bytes()).to_hex().to_string()
    }

    /// Renders the question about a pair in this order.
    ///
    /// # Errors
    ///
    /// [`TextError::Template`] if the template fails on the pair.
    pub fn render(&self, pair: Pair<'_>, order: Order) -> Result<String, TextError> {
        let (first, second) = match order {
            Order::AThenB => (pair.a, pair.b),
            Order::BThenA => (pair.b, pair.a),
        };
        let variables = Value::from_pairs([
            ("instruction", &pair.a.instruction),
            ("first", &first.output),
            ("second", &second.output),
        ]);
        self.environment
            .get_template(BUILT_IN)
            .and_then(|template| template.render(variables))
            .map_err(|error| TextError::Template { path: self.path.clone(), problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(instruction: &str, output: &str) -> Output {
        Output { instruction: instruction.to_owned(), output: output.to_owned(), generator: None, dataset: None }
    }

    fn outputs(path: &str, instructions: &[&str]) -> Outputs {
        let answers = instructions.iter().enumerate();
        let answers = answers.map(|(index, text)| (index + 1, output(text, &format!("{path} {text}")))).collect();
        Outputs { path: path.into(), generator: None, answers }
    }

    #[test]
    fn answers_meet_by_their_instructions_in_the_order_of_the_first_file() {
        let (a, b) = (outputs("a", &["one", "two", "three"]), outputs("b", &["three", "one", "two"]));
        let pairs = pairs(&a, &b).unwrap();
        let met: Vec<_> = pairs.iter().map(|pair| (pair.a.output.as_str(), pair.b.output.as_str())).collect();
        assert_eq!(met, [("a one", "b one"), ("a two", "b two"), ("a three", "b three")]);
    }

    #[test]
    fn instructions_of_one_file_alone_and_twice_in_one_are_refused_by_file_and_record() {
        let refused = |a: &[&str], b: &[&str]| pairs(&outputs("a", a), &outputs("b", b)).unwrap_err().to_string();
        assert_eq!(refused(&["one", "two"], &["one"]), "a: record 2: instruction: expected one of b, got \"two\"");
        assert_eq!(refused(&["one"], &["one", "two"]), "b: record 2: instruction: expected one of a, got \"two\"");
        assert_eq!(
            refused(&["one", "two", "one"], &["one", "two"]),
            "a: record 3: instruction: expected an instruction that no other record has, as record 1 does, got \"one\""
        );
        let long = "é".repeat(61);
        let expected = format!("a: record 1: instruction: expected one of b, got \"{}...\"", "é".repeat(60));
        assert_eq!(refused(&[&long, "one"], &["one"]), expected);
    }

    #[test]
    fn templates_show_both_orders_and_escape_nothing() {
        let (a, b) = (output("x < y?", "{{ yes }}"), output("x < y?", "no & no"));
        let template = Template::read(None).unwrap();
        let render = |order| template.render(Pair { a: &a, b: &b }, order).unwrap();
        let (one, other) = (render(Order::AThenB), render(Order::BThenA));
        assert!(one.contains("<first>\n{{ yes }}\n</first>\n\n<second>\nno & no\n</second>"), "{one}");
        assert!(other.contains("<first>\nno & no\n</first>\n\n<second>\n{{ yes }}\n</second>"), "{other}");
        assert!(one.contains("<request>\nx < y?\n</request>"), "{one}");
    }

    #[test]
    fn templates_that_leave_something_out_or_ask_for_more_are_refused() {
        let refused = |source: &str| Template::new("t".as_ref(), source).err().unwrap().to_string();
        assert_eq!(
            refused("{{ first }} {{ secnd }}"),
            "t: variables: expected a template that uses first, instruction, second and no others, got first, secnd"
        );
        assert!(refused("hi").ends_with("got none"));
        assert!(refused("{{ first").starts_with("t: syntax error: "), "{}", refused("{{ first"));
    }
}
