//! Chat templates, rendered as Hugging Face renders them.
//!
//! A template is a Jinja program that came with the model. Hugging Face runs it with `trim_blocks`, `lstrip_blocks`, loop
//! controls, the methods of Python's strings, `raise_exception`, `strftime_now`, a `tojson` that writes as `json.dumps` does,
//! and the special tokens as variables.

use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::error::LmError;
use crate::python_json::{JsonStyle, python_json};
use crate::tokens::{Settings, TOKENIZER_CONFIG_FILE};

/// The template's own file in a model's folder. Where there is none, it is a field of `tokenizer_config.json`.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// What holds for the whole conversation.
    System,
    /// The same, by its newer name.
    Developer,
    /// The human.
    User,
    /// The model.
    Assistant,
    /// What a program answered the model.
    Tool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What a rendered conversation ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What the template writes after the last turn.
    Turn,
    /// What it writes before the assistant's next one, for the model to go on.
    GenerationPrompt,
    /// The last turn's own last character, for the model to go on within it.
    Continued,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    path: PathBuf,
    special_tokens: Vec<(String, String)>,
}

const NAME: &str = "chat";
/// Marks where a turn ends that is gone on from: a character that no text means anything by, and a space, which a template that
/// trims takes away.
const MARK: &str = "\u{fdd0} ";

impl ChatTemplate {
    /// Compiles a template. `path` is what errors call it; `special_tokens` become variables by their names, as `bos_token`.
    ///
    /// `now` is what `strftime_now` tells. It is an argument, so that data do not depend on the day they are read.
    ///
    /// # Errors
    ///
    /// [`LmError::Template`] where it does not compile.
    pub fn new(
        path: &Path,
        source: &str,
        special_tokens: Vec<(String, String)>,
        now: DateTime,
    ) -> Result<Self, LmError> {
        let fail = |error: Error| LmError::Template { path: path.to_owned(), problem: error.to_string() };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fail)?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(python_method);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", move |format: String| {
            jiff::fmt::strtime::format(&format, now)
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
        });
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(fail)?;
        Ok(Self { environment, path: path.to_owned(), special_tokens })
    }

    /// The conversation as text, special tokens included.
    ///
    /// # Errors
    ///
    /// [`LmError::Template`] where the template raises an exception, as many do for roles that they do not know, and where it leaves
    /// out the turn that is to be continued.
    pub fn render(&self, messages: &[Message], ending: Ending) -> Result<String, LmError> {
        let last = messages.len().saturating_sub(1);
        let turns: Value = messages
            .iter()
            .enumerate()
            .map(|(index, message)| {
                let role: &str = message.role.into();
                let mark = if ending == Ending::Continued && index == last { MARK } else { "" };
                Value::from_pairs([
                    ("role", Value::from(role)),
                    ("content", Value::from(format!("{}{mark}", message.content))),
                ])
            })
            .collect();
        let variables = [
            ("messages", turns),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(ending == Ending::GenerationPrompt)),
        ];
        let tokens = self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token)));
        let context = Value::from_pairs(variables.into_iter().chain(tokens));
        let fail = |problem: String| LmError::Template { path: self.path.clone(), problem };
        let template = self.environment.get_template(NAME).map_err(|error| fail(error.to_string()))?;
        let mut text = template.render(context).map_err(|error| fail(error.to_string()))?;
        if ending == Ending::Continued {
            let Some(end) = text.rfind(MARK.trim_end()) else {
                return Err(fail("the last turn is left out, so that nothing can go on from it".to_owned()));
            };
            let is_trimmed = !text[end..].starts_with(MARK);
            text.truncate(end);
            if is_trimmed {
                text.truncate(text.trim_end().len());
            }
        }
        Ok(text)
    }
}

/// Reads a chat template: the one in this file, or else that of a model's folder; none where it has none, as base models do.
///
/// # Errors
///
/// [`LmError::File`] for a file that cannot be read, and as [`ChatTemplate::new`].
pub fn read_chat_template(
    file: Option<&Path>,
    folder: &Path,
    settings: &Settings,
    now: DateTime,
) -> Result<Option<ChatTemplate>, LmError> {
    let path = file.map_or_else(|| folder.join(CHAT_TEMPLATE_FILE), Path::to_owned);
    let (path, source) = match std::fs::read_to_string(&path) {
        Ok(source) => (path, source),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => match &settings.chat_template {
            Some(source) => (folder.join(TOKENIZER_CONFIG_FILE), source.clone()),
            None => return Ok(None),
        },
        Err(source) => return Err(LmError::File { path, source }),
    };
    ChatTemplate::new(&path, &source, settings.special_tokens.clone(), now).map(Some)
}

fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method, arguments) {
        (Some(text), "title", []) => Ok(Value::from(title(text))),
        _ => unknown_method_callback(state, value, method, arguments),
    }
}

/// Python's `str.title`: a letter after anything but a letter is a capital, `It's` becomes `It'S`. The library's goes by words.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut within = false;
    for character in text.chars() {
        if within {
            titled.extend(character.to_lowercase());
        } else {
            let mut capitals = character.to_uppercase();
            titled.extend(capitals.next());
            // One letter may become two, of which only the first is a capital.
            titled.extend(capitals.flat_map(char::to_lowercase));
        }
        within = character.is_lowercase() || character.is_uppercase();
    }
    titled
}

fn tojson(value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let fail = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<Value> = arguments.get("indent")?;
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let sort_keys: Option<bool> = arguments.get("sort_keys")?;
    let ascii: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => match (indent.kind(), indent.as_str(), indent.as_usize()) {
            (ValueKind::String, Some(text), _) => Some(text.to_owned()),
            (_, _, Some(spaces)) => Some(" ".repeat(spaces)),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: indent: expected a number or a string")),
        },
    };
    let mut style = JsonStyle { ascii: ascii.unwrap_or(false), ..JsonStyle::new(indent) };
    if let Some(separators) = separators {
        let [item_separator, key_separator] = separators.try_into().map_err(|_| {
            Error::new(ErrorKind::InvalidOperation, "tojson: separators: expected one of items and one of keys")
        })?;
        style = JsonStyle { item_separator, key_separator, ..style };
    }
    let text = if sort_keys.unwrap_or(false) {
        // Its maps are sorted.
        let sorted = serde_json::to_value(value).map_err(fail)?;
        python_json(&sorted, &style)
    } else {
        python_json(value, &style)
    };
    text.map(Value::from_safe_string).map_err(fail)
}

/// The template with `{% generation %}`, which marks what the assistant said and renders nothing, turned into `{% if true %}`.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let Some(length) = rest[begin..].find("%}") else { break };
        let tag = &rest[begin + 2..begin + length];
        let statement = match tag.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => Some(("generation", "if true")),
            "endgeneration" => Some(("endgeneration", "endif")),
            _ => None,
        };
        text.push_str(&rest[..begin]);
        text.push_str("{%");
        match statement {
            Some((from, to)) => {
                text.push_str(&tag.replace(from, to));
                text.push_str("%}");
                rest = &rest[begin + length + 2..];
            }
            // Another tag may begin within what looked like one, in a comment or a string.
            None => rest = &rest[begin + 2..],
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime {
        jiff::civil::date(2024, 7, 26).at(12, 0, 0, 0)
    }

    fn render(source: &str, messages: &[(Role, &str)], ending: Ending) -> Result<String, LmError> {
        let messages: Vec<_> =
            messages.iter().map(|&(role, content)| Message { role, content: content.to_owned() }).collect();
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
        ChatTemplate::new("chat_template.jinja".as_ref(), source, tokens, now())?.render(&messages, ending)
    }

    fn text(source: &str) -> String {
        render(source, &[(Role::User, "hi"), (Role::Assistant, "ho")], Ending::Turn).unwrap()
    }

    #[test]
    fn blocks_on_lines_of_their_own_leave_no_trace() {
        let source = "{{ bos_token }}\n{% for message in messages %}\n    {% if message.role == 'user' %}\n{{ message.content }}\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(text(source), "<s>\nhi\n");
    }

    #[test]
    fn the_generation_prompt_is_asked_for() {
        let source = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<go>{% endif %}";
        assert_eq!(render(source, &[(Role::User, "hi")], Ending::GenerationPrompt).unwrap(), "hi<go>");
        assert_eq!(render(source, &[(Role::User, "hi")], Ending::Turn).unwrap(), "hi");
    }

    #[test]
    fn an_exception_of_the_template_is_an_error_with_its_message() {
        let source = "{{ raise_exception('Only user and assistant roles are supported!') }}";
        let message = render(source, &[], Ending::Turn).unwrap_err().to_string();
        assert!(message.starts_with("chat_template.jinja: "), "{message}");
        assert!(message.contains("Only user and assistant roles are supported!"), "{message}");
    }

    #[test]
    fn a_template_that_does_not_compile_is_refused_with_its_line() {
        let message = render("a\n{% for %}", &[], Ending::Turn).unwrap_err().to_string();
        assert!(message.starts_with("chat_template.jinja: ") && message.contains(":2"), "{message}");
    }

    #[test]
    fn the_date_is_the_given_one() {
        assert_eq!(text("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
        assert_eq!(text("{% if strftime_now is defined %}yes{% endif %}"), "yes");
    }

    #[test]
    fn python_methods_slices_and_loop_controls_work() {
        assert_eq!(text("{{ ' a b '.strip().split(' ')[-1].upper() }}"), "B");
        assert_eq!(text("{% for m in messages[1:] %}{{ m.content }}{% endfor %}"), "ho");
        assert_eq!(
            text("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}"),
            "user"
        );
        assert_eq!(
            text("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"),
            "2"
        );
        assert_eq!(text("{{ \"it's ßé 3d\".title() }}"), "It'S Ssé 3D");
        assert_eq!(text("{{ messages[0].get('name', 'none given') }}"), "none given");
        assert_eq!(text("{{ tools }} {{ add_generation_prompt }}"), "None False");
    }

    #[test]
    fn tojson_writes_as_python_does() {
        assert_eq!(text("{{ messages[0] | tojson }}"), r#"{"role": "user", "content": "hi"}"#);
        assert_eq!(text("{{ messages[0] | tojson(sort_keys=true) }}"), r#"{"content": "hi", "role": "user"}"#);
        assert_eq!(text("{{ ['<é>'] | tojson(indent=2) }}"), "[\n  \"<é>\"\n]");
        assert_eq!(text("{{ ['é', 1] | tojson(ensure_ascii=true, separators=(',', ':')) }}"), r#"["\u00e9",1]"#);
    }

    #[test]
    fn generation_tags_render_what_they_hold() {
        let source = "{% for m in messages %}{% if m.role == 'assistant' %}[{%- generation -%} {{ m.content }} {%- endgeneration %}]{% endif %}{% endfor %}";
        assert_eq!(text(source), "[ho]");
        assert_eq!(
            without_generation_tags("{{ '{%' }}{% generation%}x{%endgeneration %}"),
            "{{ '{%' }}{% if true%}x{%endif %}"
        );
    }
}
