//! Chat templates, rendered as Hugging Face transformers renders them.
//!
//! A template is a Jinja program that is part of a model. transformers runs it with `trim_blocks`, `lstrip_blocks`,
//! loop controls, the methods of Python's strings, `raise_exception`, `strftime_now`, a `tojson` that formats as
//! `json.dumps` does, and the special tokens as variables.
//!
//! A template is an untrusted program. The size of its input bounds its work, its memory, its output, and the nesting
//! of its expressions and values.
//!
//! Expressions, filters, tests and methods give the same text as in Jinja2, and templates that Jinja2 rejects are
//! rejected. The following are not supported and are rejected by name: `pprint`, `lipsum`, `\N{...}` in strings,
//! `encode` and `translate` of strings, `self`, the statements `block` and `autoescape`, and statements that read other
//! templates. Attributes of numbers, such as `(1).real`, are undefined.

mod arguments;
mod bounds;
mod comparison;
mod dialect;
mod environment;
mod filters;
mod globals;
mod json;
mod objects;
mod percent;
mod predicates;
mod python_text;
mod remainder;
mod text_methods;
mod variadic;

use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use minijinja::value::Value;
use minijinja::{Environment, Error};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::error::TextError;
use crate::tokens::{TOKENIZER_CONFIG_FILE, TokenizerSettings};

/// Name of the template's file in a model's folder. Without this file, the template is a field of
/// `tokenizer_config.json`.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";

/// Speaker of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// Newer name of the system role.
    Developer,
    /// The human user.
    User,
    /// The model that answers.
    Assistant,
    /// Result of a program that the model called.
    Tool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Speaker of the turn.
    pub role: Role,
    /// Text of the turn.
    pub content: String,
}

/// End of a rendered conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End of the last turn, with everything that the template writes after it.
    Turn,
    /// Beginning of the assistant's next turn, which the model continues.
    GenerationPrompt,
    /// Last character of the last turn, which the model continues.
    Continued,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    path: PathBuf,
    special_tokens: Vec<(String, String)>,
}

const NAME: &str = "chat";
/// Maximum length of an error message of a template, in characters.
const MAX_MESSAGE: usize = 500;
/// Size of the stack of the engine's compiler, in bytes. The depth of the template determines how much is used.
const COMPILER_STACK: usize = 256 << 20;
/// Marker of the end of a turn that the model continues: a character that no text uses, and a space, which a template
/// that trims text removes.
const MARK: &str = "\u{fdd0} ";

impl ChatTemplate {
    /// Compiles a template. `path` is its name in errors; `special_tokens` become variables under their names, such as
    /// `bos_token`.
    ///
    /// `now` is the date that `strftime_now` formats. It is an argument, so that data do not depend on the day on which
    /// they are read.
    ///
    /// # Errors
    ///
    /// [`TextError::Template`] if the template does not compile.
    pub fn new(
        path: &Path,
        source: &str,
        special_tokens: Vec<(String, String)>,
        now: DateTime,
    ) -> Result<Self, TextError> {
        let fail = |problem: String| TextError::Template { path: path.to_owned(), problem: cut(&problem) };
        let source = dialect::translate(source).map_err(fail)?;
        // The engine parses and compiles by recursion, as deep as the template may nest.
        let compile = move || {
            let mut environment = environment::environment(now)?;
            environment.add_template_owned(NAME, source)?;
            Ok::<_, Error>(environment)
        };
        let thread = std::thread::Builder::new().stack_size(COMPILER_STACK).spawn(compile);
        let thread = thread.map_err(|source| TextError::File { path: path.to_owned(), source })?;
        let environment = match thread.join() {
            Ok(environment) => environment.map_err(|error| fail(error.to_string()))?,
            Err(_) => return Err(fail("the template's compiler failed".to_owned())),
        };
        Ok(Self { environment, path: path.to_owned(), special_tokens })
    }

    /// Renders a conversation as text, including special tokens.
    ///
    /// # Errors
    ///
    /// [`TextError::Template`] if the template raises an exception, as many templates do for unknown roles, if it
    /// exceeds the limits for a conversation of this size, and if it omits the turn that the model continues.
    pub fn render(&self, messages: &[Message], ending: Ending) -> Result<String, TextError> {
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
        let fail = |problem: String| TextError::Template { path: self.path.clone(), problem: cut(&problem) };
        let bytes = messages.iter().map(|message| message.content.len()).sum();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(bounds::fuel(messages.len(), bytes)));
        let template = environment.get_template(NAME).map_err(|error| fail(error.to_string()))?;
        let mut text = template.render(context).map_err(|error| fail(error.to_string()))?;
        let limit = bounds::max_output(bytes);
        if text.len() > limit {
            return Err(fail(format!("expected a text of at most {limit} bytes, got {}", text.len())));
        }
        if ending == Ending::Continued {
            let Some(end) = text.rfind(MARK.trim_end()) else {
                return Err(fail("the template omits the last turn, so that the model cannot continue it".to_owned()));
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

/// Reads the chat template in this file, or else that of a model's folder. `None` if the folder has none, which is
/// usual for base models.
///
/// # Errors
///
/// [`TextError::File`] for a file that cannot be read, and as [`ChatTemplate::new`].
pub fn read_chat_template(
    file: Option<&Path>,
    folder: &Path,
    settings: &TokenizerSettings,
    now: DateTime,
) -> Result<Option<ChatTemplate>, TextError> {
    let path = file.map_or_else(|| folder.join(CHAT_TEMPLATE_FILE), Path::to_owned);
    let (path, source) = match std::fs::read_to_string(&path) {
        Ok(source) => (path, source),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => match &settings.chat_template {
            Some(source) => (folder.join(TOKENIZER_CONFIG_FILE), source.clone()),
            None => return Ok(None),
        },
        Err(source) => return Err(TextError::File { path, source }),
    };
    ChatTemplate::new(&path, &source, settings.special_tokens.clone(), now).map(Some)
}

/// Truncates an error message, which an untrusted template may have made arbitrarily long.
fn cut(problem: &str) -> String {
    match problem.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", &problem[..end]),
        None => problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime {
        jiff::civil::date(2024, 7, 26).at(12, 0, 0, 0)
    }

    fn render(source: &str, messages: &[(Role, &str)], ending: Ending) -> Result<String, TextError> {
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
    }

    #[test]
    fn a_template_that_costs_too_much_is_an_error_within_seconds() {
        let long_loop = "{% for a in range(99999) %}".repeat(4) + &"{% endfor %}".repeat(4);
        let doubled =
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        let doubled_list = "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}";
        let deep_list =
            "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
        let deep_filter = "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] | batch(1) | list %}{% endfor %}{{ ns.x }}";
        let of_itself = "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}{{ ns == ns }}";
        let within_itself = "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}{{ ns }}";
        let many_nots = "{{ ".to_owned() + &"not ".repeat(100_000) + "1 }}";
        let many_ifs = "{% if 1 %}".repeat(100_000) + &"{% endif %}".repeat(4_000);
        let many_macros = "{% macro m() %}".repeat(69_000) + "kwargs";
        let compared = "{% set a = range(99999) | list %}{% for i in range(99999) %}{{ a == a }}{{ 0.5 in a }}{{ a < a }}{% endfor %}";
        let rest = "{% macro m() %}{{ m(varargs) }}{% endmacro %}{{ m(1) }}";
        let recursion = "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}";
        let twice = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}";
        let sources = [
            long_loop.as_str(),
            doubled,
            doubled_list,
            deep_list,
            deep_filter,
            of_itself,
            within_itself,
            &many_nots,
            &many_ifs,
            &many_macros,
            compared,
            rest,
            recursion,
            twice,
            "{{ 'a' | indent(1000000000000) }}",
            "{{ 'a' | center(1000000000000) }}",
            "{{ 'a'.ljust(1000000000000) }}",
            "{{ [1] | tojson(indent=1000000000000) }}",
            "{{ '%1000000000000d' % 1 }}",
            "{{ '%*d' % (1000000000000, 1) }}",
            "{{ '%.1000000000000f' | format(1.5) }}",
            "{{ '{:1000000000000}'.format(1) }}",
            "{{ '{:{}}'.format(1, 1000000000000) }}",
            "{{ '{!r:1000000000000}'.format('a') }}",
            "{{ ('{0}' * 99999).format('a' * 99999) }}",
            "{{ 'a' * 1000000000000 }}",
            "{{ [1] * 1000000000000 }}",
            "{{ range(1000000000000) }}",
            "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
            "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
            "{{ ('a' * 100000).join(range(99999) | map('string') | list) }}",
            "{{ range(99999) | join('a' * 100000) }}",
            "{{ [1] | batch(1000000000000, 0) | list }}",
            "{{ [1] | slice(1000000000000) | list }}",
            "{{ '1'.zfill(1000000000000) }}",
            "{{ '\t'.expandtabs(1000000000000) }}",
            "{{ ('a\n' * 100000) | indent('b' * 100000) }}",
            "{{ range(99999) | tojson }}{{ [range(99999) | list] * 99999 | tojson }}",
        ];
        for source in sources {
            let started = std::time::Instant::now();
            let message = render(source, &[], Ending::Turn).unwrap_err().to_string();
            assert!(message.chars().count() < 600, "{source}: {message}");
            assert!(started.elapsed().as_secs() < 20, "{source}: {:?}", started.elapsed());
        }
    }

    #[test]
    fn messages_about_a_template_are_cut() {
        let source = "{{ raise_exception('é' * 100000) }}";
        let message = render(source, &[], Ending::Turn).unwrap_err().to_string();
        assert!(
            message.chars().count() <= "chat_template.jinja: ".len() + MAX_MESSAGE + 3 && message.ends_with("..."),
            "{message}"
        );
    }
}
