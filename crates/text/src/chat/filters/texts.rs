//! Filters of strings.

use minijinja::value::{DynObject, ValueKind};
use minijinja::{Error, State, Value};

use super::super::arguments::{bind, fail, given, is_true, size_or, subject, text};
use super::super::bounds::pay;
use super::super::python_text::python_str;
use super::super::text_methods::{capitalize, lines, replace, strip};
use super::Filter;

pub(super) const FILTERS: [(&str, Filter); 18] = [
    ("string", |state, arguments| read(state, arguments).map(|(value, _)| value)),
    ("upper", |state, arguments| changed(state, arguments, str::to_uppercase)),
    ("lower", |state, arguments| changed(state, arguments, str::to_lowercase)),
    ("capitalize", |state, arguments| changed(state, arguments, capitalize)),
    ("title", |state, arguments| changed(state, arguments, title)),
    ("trim", |state, arguments| {
        let (value, arguments) = read(state, arguments)?;
        let [characters] = bind(arguments, ["chars"])?;
        strip(text(&value, "trim")?, "strip", given(characters).as_ref()).map(Value::from)
    }),
    ("replace", |state, arguments| {
        let (value, arguments) = read(state, arguments)?;
        let [old, new, count] = bind(arguments, ["old", "new", "count"])?;
        let (Some(old), Some(new)) = (old, new) else { return Err(fail("replace: expected two texts")) };
        let (old, new) = (python_str(state, &old)?, python_str(state, &new)?);
        replace(state, text(&value, "replace")?, &old, &new, count.as_ref())
    }),
    ("escape", escape),
    ("e", escape),
    ("forceescape", escape),
    ("striptags", striptags),
    ("indent", indent),
    ("truncate", truncate),
    ("wordcount", |state, arguments| {
        let (value, _) = read(state, arguments)?;
        let is_word = |character: char| character == '_' || character.is_alphanumeric();
        Ok(Value::from(
            text(&value, "wordcount")?.split(|character| !is_word(character)).filter(|word| !word.is_empty()).count(),
        ))
    }),
    ("wordwrap", wordwrap),
    ("center", |state, arguments| {
        let (value, arguments) = read(state, arguments)?;
        let [width] = bind(arguments, ["width"])?;
        let width = Value::from(size_or(width.as_ref(), 80, "width")?);
        value.call_method(state, "center", &[width])
    }),
    ("urlencode", urlencode),
    ("xmlattr", xmlattr),
];

/// The filtered value as a string, and the further arguments.
fn read<'a>(state: &State<'_, '_>, arguments: &'a [Value]) -> Result<(Value, &'a [Value]), Error> {
    let (value, arguments) = subject(arguments)?;
    let text = if value.as_str().is_some() { value.clone() } else { Value::from(python_str(state, value)?) };
    pay(state, text.as_str().map_or(0, str::len))?;
    Ok((text, arguments))
}

fn changed(state: &mut State<'_, '_>, arguments: &[Value], change: fn(&str) -> String) -> Result<Value, Error> {
    let (value, arguments) = read(state, arguments)?;
    let [] = bind(arguments, [])?;
    Ok(Value::from(change(text(&value, "a filter")?)))
}

/// Jinja2's `title`: every word begins with a capital, and words end at white space, opening brackets and hyphens.
fn title(value: &str) -> String {
    let is_end = |character: char| character.is_whitespace() || matches!(character, '-' | '(' | '{' | '[' | '<');
    let mut titled = String::with_capacity(value.len());
    let mut begins = true;
    for character in value.chars() {
        if begins {
            titled.extend(character.to_uppercase())
        } else {
            titled.extend(character.to_lowercase())
        }
        begins = is_end(character);
    }
    titled
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\'' => text.push_str("&#39;"),
            '"' => text.push_str("&#34;"),
            _ => text.push(character),
        }
    }
    text
}

fn escape(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = read(state, arguments)?;
    Ok(if value.is_safe() { value } else { Value::from_safe_string(escaped(text(&value, "escape")?)) })
}

fn striptags(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = read(state, arguments)?;
    let mut rest = text(&value, "striptags")?;
    let mut stripped = String::with_capacity(rest.len());
    while let Some(begin) = rest.find('<') {
        let Some(length) = rest[begin..].find('>') else { break };
        stripped.push_str(&rest[..begin]);
        rest = &rest[begin + length + 1..];
    }
    stripped.push_str(rest);
    Ok(Value::from(stripped.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn indent(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = read(state, arguments)?;
    let [width, first, blank] = bind(arguments, ["width", "first", "blank"])?;
    let (first, blank) = (is_true(first.as_ref(), false), is_true(blank.as_ref(), false));
    let value = text(&value, "indent")?;
    let lines = lines(&format!("{value}\n"), false);
    let indentation = match width.as_ref().and_then(Value::as_str) {
        Some(indentation) => indentation.to_owned(),
        None => {
            let spaces = size_or(width.as_ref(), 4, "width")?;
            pay(state, spaces)?;
            " ".repeat(spaces)
        }
    };
    pay(state, lines.len().saturating_mul(indentation.len()))?;
    let mut indented = String::with_capacity(value.len());
    for (index, line) in lines.iter().enumerate() {
        let line = text(line, "indent")?;
        indented.push_str(if index > 0 { "\n" } else { "" });
        let is_indented = if index > 0 { blank || !line.is_empty() } else { first };
        indented.push_str(if is_indented { &indentation } else { "" });
        indented.push_str(line);
    }
    Ok(Value::from(indented))
}

fn truncate(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = read(state, arguments)?;
    let [length, cut_words, end, leeway] = bind(arguments, ["length", "killwords", "end", "leeway"])?;
    let length = size_or(length.as_ref(), 255, "length")?;
    let leeway = size_or(given(leeway).as_ref(), 5, "leeway")?;
    let end = match &end {
        Some(end) => text(end, "end")?,
        None => "...",
    };
    let whole = text(&value, "truncate")?;
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(fail(format!("truncate: expected a length of at least the end's, got {length}")));
    };
    if whole.chars().count() <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let kept = whole.char_indices().nth(kept).map_or(whole, |(index, _)| &whole[..index]);
    let kept = match is_true(cut_words.as_ref(), false) {
        true => kept,
        false => kept.rsplit_once(' ').map_or(kept, |(before, _)| before),
    };
    Ok(Value::from(format!("{kept}{end}")))
}

fn wordwrap(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = read(state, arguments)?;
    let [width, cut, with] = bind(arguments, ["width", "break_long_words", "wrapstring"])?;
    let width = size_or(width.as_ref(), 79, "width")?.max(1);
    let cut = is_true(cut.as_ref(), true);
    let with = match given(with) {
        Some(with) => text(&with, "wrapstring")?.to_owned(),
        None => "\n".to_owned(),
    };
    let mut wrapped: Vec<String> = Vec::new();
    for line in lines(text(&value, "wordwrap")?, false) {
        let (mut current, mut length) = (String::new(), 0);
        let mut rows = Vec::new();
        for word in text(&line, "wordwrap")?.split(' ').filter(|word| !word.is_empty()) {
            let mut word: Vec<char> = word.chars().collect();
            if length > 0 && length + 1 + word.len() > width && !(cut && word.len() > width && length + 1 < width) {
                rows.push(std::mem::take(&mut current));
                length = 0;
            }
            if length > 0 {
                current.push(' ');
                length += 1;
            }
            while cut && length + word.len() > width {
                let rest = word.split_off(width - length);
                current.extend(word);
                rows.push(std::mem::take(&mut current));
                (word, length) = (rest, 0);
            }
            length += word.len();
            current.extend(word);
        }
        rows.push(current);
        wrapped.push(rows.join(&with));
    }
    pay(state, wrapped.iter().map(String::len).sum::<usize>())?;
    Ok(Value::from(wrapped.join(&with)))
}

fn quote(value: &str, safe: &str) -> String {
    let mut quoted = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => quoted.push(byte.into()),
            _ if safe.as_bytes().contains(&byte) => quoted.push(byte.into()),
            _ => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

fn urlencode(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = subject(arguments)?;
    if value.kind() != ValueKind::Map {
        let (value, _) = read(state, arguments)?;
        return Ok(Value::from(quote(text(&value, "urlencode")?, "/")));
    }
    let mut parts = Vec::new();
    for (key, held) in value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten() {
        let plus = |text: String| quote(&text, " ").replace(' ', "+");
        parts.push(format!("{}={}", plus(python_str(state, &key)?), plus(python_str(state, &held)?)));
    }
    Ok(Value::from(parts.join("&")))
}

fn xmlattr(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = subject(arguments)?;
    let mut attributes = String::new();
    for (key, held) in value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten() {
        if !held.is_none() && !held.is_undefined() {
            let held = python_str(state, &held)?;
            attributes.push_str(&format!(" {}=\"{}\"", escaped(&python_str(state, &key)?), escaped(&held)));
        }
    }
    Ok(Value::from(attributes))
}
