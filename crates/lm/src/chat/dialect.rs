//! Jinja2's source as the source that the engine reads, with a bound on how deep anything nests.
//!
//! A template is cut into tokens as Jinja2 cuts it, before the engine's recursive parser sees it. Tokens that mean something else
//! to the engine are written in its terms:
//!
//! - escapes of Python's texts that the engine lacks or reads otherwise, as `'\/'`;
//! - `a % b`, which formats where a is a text, as a call;
//! - `{% generation %}`, which marks what the assistant said, as a scope of its own;
//! - values that hold other values, as themselves through a filter that bounds them ([`super::bounds`]).
//!
//! Lines stay where they are, so that errors name the right ones.

use super::bounds::{BOUNDED, HELD};
use super::remainder::REMAINDER;

/// The longest template, in bytes. The longest known ones have some tens of thousands.
pub(super) const MAX_SOURCE: usize = 1 << 20;
/// The most tokens that one expression may hang on each other: operators, filters, brackets in brackets.
pub(super) const MAX_NESTING: usize = 1000;
/// The most `elif` of a template, each of which is within the one before it.
const MAX_ELIF: usize = 500;
/// Statements that the engine has and Jinja2, as transformers runs it, has not, or that would read other templates.
const UNKNOWN_STATEMENTS: [&str; 7] = ["do", "include", "import", "from", "extends", "trans", "debug"];
/// Words that no operand ends with.
const OPERATORS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "else", "elif", "for", "set", "with", "recursive", "filter"];

/// A template in the engine's terms, or why there is none.
pub(super) fn translate(source: &str) -> Result<String, String> {
    if source.len() > MAX_SOURCE {
        return Err(format!("expected at most {MAX_SOURCE} bytes, got {}", source.len()));
    }
    // As Jinja2 does before anything else.
    let source = &source.replace("\r\n", "\n").replace('\r', "\n");
    let mut translation = Translation { source, position: 0, text: String::with_capacity(source.len() * 2), elifs: 0 };
    translation.template()?;
    Ok(translation.text)
}

struct Translation<'a> {
    source: &'a str,
    position: usize,
    text: String,
    elifs: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Symbol,
}

/// A token, with what is written before and behind it in the translation.
#[derive(Debug)]
struct Token<'a> {
    kind: Kind,
    source: &'a str,
    /// White space before it.
    space: &'a str,
    before: String,
    /// What is written instead of it.
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
        while let Some(begin) = ["{{", "{%", "{#"].iter().filter_map(|open| self.rest().find(open)).min() {
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

    /// Everything up to the end of a tag.
    fn expression(&mut self, close: &str) -> Result<(), String> {
        let (mut tokens, end) = self.tokens(close)?;
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
                return Err(self.fail(format_args!("{{% {name} %}} is no statement of a chat template")));
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
            "macro" | "call" | "endfor" | "endif" | "endset" => {
                let begin = tokens.iter().position(|token| token.is("(")).map_or(tokens.len(), |open| open + 1);
                rewrite(tokens, begin);
            }
            _ => rewrite(tokens, 1),
        }
        Ok(())
    }

    /// The tokens of a tag, and its end with the white space before it.
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

fn text_length(source: &str) -> Option<usize> {
    let mut characters = source.char_indices();
    let (_, quote) = characters.next()?;
    while let Some((index, character)) = characters.next() {
        if character == '\\' {
            characters.next()?;
        } else if character == quote {
            return Some(index + 1);
        }
    }
    None
}

fn number_length(source: &str) -> usize {
    let bytes = source.as_bytes();
    if matches!(bytes.get(..2), Some([b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B'])) {
        return 2 + source[2..].find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(source.len() - 2);
    }
    let digits =
        |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    end
}

/// A text's literal with the escapes that the engine has, where Python's differ.
fn python_text(literal: &str) -> Result<Option<String>, String> {
    if !literal.contains('\\') {
        return Ok(None);
    }
    let mut text = String::with_capacity(literal.len() + 8);
    let mut rest = literal;
    while let Some(index) = rest.find('\\') {
        text.push_str(&rest[..index]);
        rest = &rest[index + 1..];
        let escape = rest.chars().next().unwrap_or('\\');
        let mut length = escape.len_utf8();
        let code = |digits: &str, radix: u32| {
            let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
            let code = if is_number { u32::from_str_radix(digits, radix).ok() } else { None };
            code.and_then(char::from_u32).ok_or_else(|| format!("\\{escape}{digits} is no character"))
        };
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let mut is_known = false;
        let character = match escape {
            _ if digits > 0 => {
                length += digits;
                Some(code(rest.get(1..=digits).unwrap_or_default(), 16)?)
            }
            'N' => return Err("\\N is not supported: write the character or its \\u".to_owned()),
            '0'..='7' => {
                length = rest.chars().take(3).take_while(|digit| digit.is_digit(8)).count();
                Some(code(&rest[..length], 8)?)
            }
            'a' => Some('\u{7}'),
            'v' => Some('\u{b}'),
            '\n' => None,
            '\\' | '\'' | '"' | 'b' | 'f' | 'n' | 'r' | 't' => {
                text.push('\\');
                is_known = true;
                Some(escape)
            }
            // Python keeps the backslash of an escape that it does not know.
            _ => {
                text.push_str("\\\\");
                is_known = true;
                Some(escape)
            }
        };
        match character {
            Some('\n') if !is_known => text.push_str("\\n"),
            Some('\r') if !is_known => text.push_str("\\r"),
            Some(quote @ ('\\' | '\'' | '"')) if !is_known => text.extend(['\\', quote]),
            Some(character) => text.push(character),
            None => {}
        }
        rest = &rest[length..];
    }
    text.push_str(rest);
    Ok(Some(text))
}

/// Whether an operand ends with the token at `index`, so that a bracket behind it is a call or a subscript.
fn ends_operand(tokens: &[Token<'_>], index: usize, bracket: &str) -> bool {
    let token = &tokens[index];
    match token.kind {
        Kind::Name => {
            let is_test = |index: usize| {
                tokens[index].is("is") || (tokens[index].is("not") && index > 0 && tokens[index - 1].is("is"))
            };
            if index > 0 && is_test(index - 1) && !token.is("not") {
                return bracket == "(";
            }
            !token.is_any(&OPERATORS)
        }
        Kind::Number | Kind::Text => true,
        Kind::Symbol => token.is_any(&[")", "]", "}"]),
    }
}

/// Bounds the values of an expression that hold others, and writes its remainders as calls.
fn rewrite(tokens: &mut [Token<'_>], begin: usize) {
    bound_literals(tokens, begin);
    let remainders: Vec<_> = (begin..tokens.len()).filter(|index| tokens[*index].is("%")).collect();
    for index in remainders {
        let first = left_operand(tokens, begin, index);
        let last = right_operand(tokens, index);
        // Where an operand is missing the engine says so.
        if first < index && last > index {
            tokens[first].before.insert_str(0, &format!("{REMAINDER}("));
            tokens[index].text = Some(",".to_owned());
            tokens[last].behind.push(')');
        }
    }
}

fn bound_literals(tokens: &mut [Token<'_>], begin: usize) {
    struct Open {
        index: usize,
        is_literal: bool,
        has_comma: bool,
        is_constant: bool,
    }
    let mut open: Vec<Open> = Vec::new();
    for index in begin..tokens.len() {
        let bracket = tokens[index].source;
        match bracket {
            _ if tokens[index].kind != Kind::Symbol => {
                let is_constant = tokens[index].kind != Kind::Name
                    || tokens[index].is_any(&["true", "True", "false", "False", "none", "None"]);
                open.iter_mut().for_each(|open| open.is_constant &= is_constant);
            }
            "(" | "[" | "{" => {
                let is_literal = index == begin || !ends_operand(tokens, index - 1, bracket);
                open.push(Open { index, is_literal, has_comma: false, is_constant: true });
            }
            ")" | "]" | "}" => {
                let Some(closed) = open.pop() else { continue };
                if closed.is_literal && !closed.is_constant && (closed.has_comma || bracket != ")") {
                    tokens[closed.index].before.push('(');
                    tokens[index].behind.push_str(&format!("|{BOUNDED})"));
                }
            }
            "," => {
                if let Some(open) = open.last_mut() {
                    open.has_comma = true;
                }
            }
            _ => {}
        }
    }
}

/// Whether a product ends before this token or begins behind it.
fn bounds_product(tokens: &[Token<'_>], begin: usize, index: usize) -> bool {
    let token = &tokens[index];
    let follows = |text: &str| index > begin && tokens[index - 1].is(text);
    match token.kind {
        Kind::Symbol => {
            let is_sign = token.is_any(&["-", "+"]) && !(index > begin && ends_operand(tokens, index - 1, "["));
            !is_sign
                && token.is_any(&[
                    "+", "-", "~", "==", "!=", "<", ">", "<=", ">=", ",", ":", "=", "(", "[", "{", ")", "]", "}",
                ])
        }
        Kind::Name if token.is_any(&["not", "in"]) => {
            let ends_is_not_in = token.is("in") && follows("not") && index > begin + 1 && tokens[index - 2].is("is");
            !(follows("is") || ends_is_not_in)
        }
        Kind::Name => token.is_any(&["and", "or", "if", "else", "recursive"]),
        _ => false,
    }
}

fn left_operand(tokens: &[Token<'_>], begin: usize, remainder: usize) -> usize {
    let (mut index, mut depth) = (remainder, 0_usize);
    while index > begin {
        let token = &tokens[index - 1];
        if token.is_any(&[")", "]", "}"]) {
            depth += 1;
        } else if depth > 0 {
            depth -= usize::from(token.is_any(&["(", "[", "{"]));
        } else if bounds_product(tokens, begin, index - 1) {
            break;
        }
        index -= 1;
    }
    index
}

fn right_operand(tokens: &[Token<'_>], remainder: usize) -> usize {
    let (mut last, mut depth) = (remainder, 0_usize);
    for index in remainder + 1..tokens.len() {
        let token = &tokens[index];
        if token.is_any(&["(", "[", "{"]) {
            depth += 1;
        } else if depth > 0 {
            depth -= usize::from(token.is_any(&[")", "]", "}"]));
        } else if bounds_product(tokens, remainder, index) || token.is_any(&["*", "/", "//", "%"]) {
            break;
        }
        last = index;
    }
    last
}

/// The index behind the first token outside brackets that is `text`.
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

/// `{% set target = value %}`.
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

/// `{% for target in values if condition recursive %}`.
fn for_loop(tokens: &mut [Token<'_>]) {
    let Some(begin) = behind(tokens, 1, &["in"]) else { return };
    rewrite(tokens, begin);
    let end = behind(tokens, begin, &["if", "recursive"]).map_or(tokens.len(), |end| end - 1);
    if begin < end && behind(&tokens[..end], begin, &[","]).is_some() {
        tokens[begin].before.insert_str(0, "((");
        tokens[end - 1].behind.push_str(&format!(")|{BOUNDED})"));
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
    fn remainders_are_calls_with_their_operands() {
        let call = |source: &str| {
            let text = translate(&format!("{{{{ {source} }}}}")).unwrap();
            text[3..text.len() - 3].replace(REMAINDER, "R").replace(" ,", ",").replace(&format!("|{BOUNDED}"), "|B")
        };
        assert_eq!(call("a % b"), "R(a, b)");
        assert_eq!(call("x == loop.index0 % 2 == 0"), "x == R(loop.index0, 2) == 0");
        assert_eq!(call("1 + -a * b % c % d - e"), "1 + R(R(-a * b, c), d) - e");
        assert_eq!(call("f(a % 2, k=b % [c])"), "f(R(a, 2), k=R(b, ([c]|B)))");
        assert_eq!(call("'%s' % (a, b) | upper"), "R('%s', ((a, b)|B) | upper)");
        assert_eq!(call("not a % 2 in x or y[i % 2]"), "not R(a, 2) in x or y[R(i, 2)]");
        assert_eq!(call("a % 2 is odd and b"), "R(a, 2 is odd) and b");
        assert_eq!(call("'a % b'"), "'a % b'");
    }

    #[test]
    fn escapes_are_those_of_python() {
        let literal = |source: &str| python_text(source).unwrap().unwrap();
        assert_eq!(literal(r"'\/\.\n\\n'"), r"'\\/\\.\n\\n'");
        assert_eq!(literal(r"'\x41\101\U0001F600\''"), "'AA\u{1f600}\\''");
        assert_eq!(literal(r"'\x27\x5c'"), r"'\'\\'");
        assert!(python_text(r"'\xzz'").is_err() && python_text(r"'\ud800'").is_err());
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
