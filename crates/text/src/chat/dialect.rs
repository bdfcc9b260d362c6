//! Translation of Jinja2's syntax to that of the template engine, with a limit on nesting.
//!
//! A template is split into tokens as Jinja2 splits it, before the engine's recursive parser reads it. Tokens whose
//! meaning in the engine differs are translated:
//!
//! - escapes of Python's strings that the engine lacks or interprets otherwise, such as `'\/'`;
//! - `a % b`, which formats if a is a string, and comparisons: translated to calls;
//! - the values of a loop: passed through a filter that accepts every value;
//! - macros that read `varargs` or `kwargs`: these become parameters ([`super::variadic`]);
//! - `{% generation %}`, which marks the assistant's text: translated to a scope;
//! - values that contain other values: passed through a filter that limits their size ([`super::bounds`]).
//!
//! Line numbers do not change, so that errors name the right lines.

mod literals;
mod operators;

use super::bounds::{BOUNDED, HELD};
use super::predicates::ITERATED;
use super::variadic::VARIADIC;
use literals::{number_length, python_text, text_length};
use operators::rewrite;

/// Maximum length of a template, in bytes. The longest known templates have some tens of thousands.
pub(super) const MAX_SOURCE: usize = 1 << 20;
/// Maximum number of tokens that one expression may chain: operators, filters, nested brackets.
pub(super) const MAX_NESTING: usize = 1000;
/// Maximum number of `elif` of a template, each of which is nested in the one before it.
const MAX_ELIF: usize = 500;
/// Rejected statements: those that the engine has but Jinja2 in transformers lacks, that would read other templates, or
/// that differ.
const UNKNOWN_STATEMENTS: [&str; 9] =
    ["do", "include", "import", "from", "extends", "trans", "debug", "block", "autoescape"];

/// Translates a template, or returns the reason why it is rejected.
pub(super) fn translate(source: &str) -> Result<String, String> {
    if source.len() > MAX_SOURCE {
        return Err(format!("expected at most {MAX_SOURCE} bytes, got {}", source.len()));
    }
    // As Jinja2 does before anything else.
    let source = &source.replace("\r\n", "\n").replace('\r', "\n");
    let places = |word: &str| source.match_indices(word).map(|(place, _)| place).collect::<Vec<_>>();
    let mut rests = [places("varargs"), places("kwargs")].concat();
    rests.sort_unstable();
    let text = String::with_capacity(source.len() * 2);
    let macro_ends = places("endmacro");
    let mut translation = Translation { source, position: 0, text, elifs: 0, macros: Vec::new(), rests, macro_ends };
    translation.template()?;
    Ok(translation.text)
}

struct Translation<'a> {
    source: &'a str,
    position: usize,
    text: String,
    elifs: usize,
    /// Names of the open macros that read `varargs` or `kwargs`; `None` for other macros.
    macros: Vec<Option<&'a str>>,
    /// Positions of `varargs` and `kwargs`, and of `endmacro`.
    rests: Vec<usize>,
    macro_ends: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Symbol,
}

/// A token, with the text that the translation adds before and after it.
#[derive(Debug)]
struct Token<'a> {
    kind: Kind,
    source: &'a str,
    /// White space before the token.
    space: &'a str,
    before: String,
    /// Text that replaces the token.
    text: Option<String>,
    behind: String,
}

impl Token<'_> {
    fn is(&self, text: &str) -> bool {
        self.kind != Kind::Text && self.source == text
    }

    fn is_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.is(text))
    }
}

impl<'a> Translation<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.position..]
    }

    fn line(&self) -> usize {
        1 + self.source[..self.position].matches('\n').count()
    }

    fn fail(&self, problem: impl std::fmt::Display) -> String {
        format!("line {}: {problem}", self.line())
    }

    fn copy(&mut self, length: usize) {
        let end = self.position + length;
        self.text.push_str(&self.source[self.position..end]);
        self.position = end;
    }

    fn template(&mut self) -> Result<(), String> {
        let opens = |rest: &str| {
            let is_tag = |begin: &usize| matches!(rest.as_bytes().get(begin + 1), Some(b'{' | b'%' | b'#'));
            rest.match_indices('{').map(|(begin, _)| begin).find(is_tag)
        };
        while let Some(begin) = opens(self.rest()) {
            self.copy(begin);
            match &self.rest()[..2] {
                "{#" => match self.rest().find("#}") {
                    Some(end) => self.copy(end + 2),
                    None => return Err(self.fail("a comment does not end")),
                },
                "{%" => self.statement()?,
                _ => {
                    self.copy(2);
                    self.copy(usize::from(self.rest().starts_with(['-', '+'])));
                    self.expression("}}")?;
                }
            }
        }
        self.copy(self.rest().len());
        Ok(())
    }

    fn statement(&mut self) -> Result<(), String> {
        if let Some(length) = raw_length(self.rest()) {
            self.copy(length);
            return Ok(());
        }
        self.copy(2);
        self.copy(usize::from(self.rest().starts_with(['-', '+'])));
        self.expression("%}")
    }

    /// Translates everything up to the end of a tag.
    fn expression(&mut self, close: &str) -> Result<(), String> {
        let (mut tokens, end) = self.tokens(close)?;
        let reads_self = |index: usize| tokens[index].is("self") && (index == 0 || !tokens[index - 1].is("."));
        if (0..tokens.len()).any(reads_self) {
            return Err(self.fail("self is not supported"));
        }
        let ended =
            if tokens.first().is_some_and(|token| token.is("endmacro")) { self.macros.pop().flatten() } else { None };
        if close == "%}" {
            self.tag(&mut tokens)?;
        } else {
            rewrite(&mut tokens, 0);
        }
        for token in &tokens {
            self.text.push_str(token.space);
            self.text.push_str(&token.before);
            self.text.push_str(token.text.as_deref().unwrap_or(token.source));
            self.text.push_str(&token.behind);
        }
        if let Some(name) = ended {
            self.text.push_str(&format!(" %}}{{% set {name} = {VARIADIC}({VARIADIC}_{name})"));
        }
        self.text.push_str(end);
        Ok(())
    }

    fn tag(&mut self, tokens: &mut [Token<'a>]) -> Result<(), String> {
        let Some(first) = tokens.first_mut() else { return Ok(()) };
        if first.kind != Kind::Name {
            return Ok(());
        }
        match first.source {
            name if UNKNOWN_STATEMENTS.contains(&name) => {
                return Err(self.fail(format_args!("{{% {name} %}} is not a statement of chat templates")));
            }
            "elif" => {
                self.elifs += 1;
                if self.elifs > MAX_ELIF {
                    return Err(self.fail(format_args!("expected at most {MAX_ELIF} elif, got more")));
                }
            }
            "generation" => first.text = Some("with".to_owned()),
            "endgeneration" => first.text = Some("endwith".to_owned()),
            _ => {}
        }
        let name = first.source;
        match name {
            "set" => set(tokens),
            "for" => for_loop(tokens),
            "macro" if tokens.len() > 3 => {
                let next = |places: &[usize]| {
                    let index = places.partition_point(|place| *place < self.position);
                    places.get(index).copied().unwrap_or(usize::MAX)
                };
                let is_variadic = next(&self.rests) < next(&self.macro_ends);
                self.macros.push(is_variadic.then_some(tokens[1].source));
                rewrite(tokens, 3);
                if is_variadic {
                    tokens[1].before = format!("{VARIADIC}_");
                    let last = tokens.len() - 1;
                    let comma = if last > 3 { ", " } else { "" };
                    tokens[last].before.push_str(&format!("{comma}varargs=(), kwargs={{}}"));
                }
            }
            "call" | "endfor" | "endif" | "endset" => {
                let begin = tokens.iter().position(|token| token.is("(")).map_or(tokens.len(), |open| open + 1);
                rewrite(tokens, begin);
            }
            _ => rewrite(tokens, 1),
        }
        Ok(())
    }

    /// Reads the tokens of a tag, and its end with the white space before it.
    fn tokens(&mut self, close: &str) -> Result<(Vec<Token<'a>>, &'a str), String> {
        let mut tokens = Vec::new();
        // For each open bracket, itself and the tokens since its last comma.
        let mut open: Vec<(char, usize)> = Vec::new();
        let (mut since_comma, mut nesting) = (0, 0);
        loop {
            let rest = self.rest();
            let space = &rest[..rest.len() - rest.trim_start().len()];
            let rest = &rest[space.len()..];
            let Some(character) = rest.chars().next() else { return Err(self.fail("a tag does not end")) };
            if open.is_empty() {
                let signed = rest.strip_prefix(['-', '+']).is_some_and(|rest| rest.starts_with(close));
                if signed || rest.starts_with(close) {
                    let end = space.len() + usize::from(signed) + close.len();
                    let end = &self.rest()[..end];
                    self.position += end.len();
                    return Ok((tokens, end));
                }
            }
            let (kind, length, text) = match character {
                '\'' | '"' => {
                    let length = text_length(rest).ok_or_else(|| self.fail("a text does not end"))?;
                    (Kind::Text, length, python_text(&rest[..length]).map_err(|problem| self.fail(problem))?)
                }
                _ if character.is_ascii_digit() => (Kind::Number, number_length(rest), None),
                _ if character == '_' || character.is_alphabetic() => {
                    (Kind::Name, rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len()), None)
                }
                _ => {
                    let two = ["**", "//", "==", "!=", "<=", ">="].iter().any(|symbol| rest.starts_with(symbol));
                    (Kind::Symbol, if two { 2 } else { character.len_utf8() }, None)
                }
            };
            match character {
                '(' | '[' | '{' => open.push((character, std::mem::take(&mut since_comma))),
                ')' | ']' | '}' => match open.pop() {
                    Some((bracket, before)) if matches!((bracket, character), ('(', ')') | ('[', ']') | ('{', '}')) => {
                        since_comma = before;
                    }
                    _ => return Err(self.fail(format_args!("{character} closes no bracket"))),
                },
                ',' => since_comma = 0,
                _ => {}
            }
            since_comma += 1;
            nesting = nesting.max(since_comma + open.len() + open.iter().map(|(_, before)| before).sum::<usize>());
            if nesting > MAX_NESTING {
                return Err(self.fail(format_args!("an expression nests more than {MAX_NESTING} tokens deep")));
            }
            let source = &rest[..length];
            self.position += space.len() + length;
            tokens.push(Token { kind, source, space, before: String::new(), text, behind: String::new() });
        }
    }
}

/// The length of a raw block, from its first tag to its last.
fn raw_length(source: &str) -> Option<usize> {
    fn tag(source: &str, name: &str) -> Option<usize> {
        let rest = source.strip_prefix("{%")?;
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start().strip_prefix(name)?.trim_start();
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
        Some(source.len() - rest.len())
    }
    let begin = tag(source, "raw")?;
    let end = source[begin..]
        .match_indices("{%")
        .find_map(|(index, _)| tag(&source[begin + index..], "endraw").map(|length| index + length));
    // The engine says that it does not end.
    Some(end.map_or(source.len(), |end| begin + end))
}

/// Index of the first token after `from` that is one of `texts` and not within brackets.
fn behind(tokens: &[Token<'_>], from: usize, texts: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        if token.is_any(&["(", "[", "{"]) {
            depth += 1;
        } else if token.is_any(&[")", "]", "}"]) {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is_any(texts) {
            return Some(index + 1);
        }
    }
    None
}

/// Translates `{% set target = value %}`.
fn set(tokens: &mut [Token<'_>]) {
    let Some(value) = behind(tokens, 1, &["="]) else { return };
    if value == tokens.len() {
        return;
    }
    rewrite(tokens, value);
    let filter = if tokens[..value].iter().any(|token| token.is(".")) { HELD } else { BOUNDED };
    tokens[value].before.insert(0, '(');
    let last = tokens.len() - 1;
    tokens[last].behind.push_str(&format!(")|{filter}"));
}

/// Translates `{% for target in values if condition recursive %}`.
fn for_loop(tokens: &mut [Token<'_>]) {
    let Some(begin) = behind(tokens, 1, &["in"]) else { return };
    rewrite(tokens, begin);
    let end = behind(tokens, begin, &["if", "recursive"]).map_or(tokens.len(), |end| end - 1);
    if begin < end {
        let is_tuple = behind(&tokens[..end], begin, &[","]).is_some();
        let filters = if is_tuple { format!("{BOUNDED}|{ITERATED}") } else { ITERATED.to_owned() };
        tokens[begin].before.insert_str(0, "((");
        tokens[end - 1].behind.push_str(&format!(")|{filters})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_read_alike_is_left_alone() {
        let source = "{# c #}{%- if a['x'] and not b.c[1:] -%}\n {{- f(x, y=[1, 'a']) | join(', ') }}{% raw %}{{ '\\/' % }}{% endraw %}{% endif %}";
        assert_eq!(translate(source).unwrap(), source);
    }

    #[test]
    fn depth_is_refused_with_its_line_before_anything_is_parsed() {
        for deep in ["not ", "(", "[", "-", "{'a': "] {
            let problem = translate(&format!("\n{{{{ {}a }}}}", deep.repeat(100_000))).unwrap_err();
            assert_eq!(problem, "line 2: an expression nests more than 1000 tokens deep");
        }
        for deep in ["|f", ".a", "[0]", "()", " + a", " if b else a"] {
            translate(&format!("{{{{ a{} }}}}", deep.repeat(100_000))).unwrap_err();
        }
        assert!(translate(&"{% elif a %}".repeat(501)).unwrap_err().contains("elif"));
        assert!(translate(&" ".repeat(MAX_SOURCE + 1)).unwrap_err().contains("bytes"));
        translate(&format!("{{{{ [{}] }}}}", "'a', ".repeat(10_000))).unwrap();
    }
}
