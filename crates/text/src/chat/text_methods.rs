//! Methods of Python's strings, lists and dictionaries.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::{bind, fail, given, integer_or, is_true, size_or, text};
use super::bounds::pay;
use super::objects::DictView;
use super::percent::str_format;
use super::python_text::is_printable;

/// Calls a method that the engine lacks.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => of_text(state, text, method, arguments),
        (ValueKind::Map, _) => of_map(value, method, arguments),
        (ValueKind::Seq | ValueKind::Iterable, _) => of_list(value, method, arguments),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn of_map(value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let Some(map) = value.as_object() else { return Err(Error::from(ErrorKind::UnknownMethod)) };
    if map.type_name().ends_with("Namespace") {
        return Err(Error::from(ErrorKind::UnknownMethod));
    }
    let name = match method {
        "keys" => "dict_keys",
        "values" => "dict_values",
        "items" => "dict_items",
        "get" => {
            let [key, default] = bind(arguments, ["", " "])?;
            let key = key.ok_or_else(|| fail("get: expected a key"))?;
            return Ok(map.get_value(&key).or(default).unwrap_or_else(|| Value::from(())));
        }
        "copy" => {
            let [] = bind(arguments, [])?;
            return Ok(value.clone());
        }
        "pop" | "update" | "setdefault" | "clear" | "popitem" => {
            return Err(fail(format!("{method}: a template cannot change a map")));
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    let [] = bind(arguments, [])?;
    Ok(DictView::value(map, name))
}

fn of_list(value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match method {
        "count" | "index" => {
            let [what] = bind(arguments, [""])?;
            let what = what.ok_or_else(|| fail(format!("{method}: expected a value")))?;
            let mut items = value.try_iter()?;
            if method == "count" {
                return Ok(Value::from(items.filter(|item| *item == what).count()));
            }
            items.position(|item| item == what).map(Value::from).ok_or_else(|| fail("index: no such value"))
        }
        "copy" if !value.is_tuple() => Ok(value.clone()),
        "append" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" | "clear" => {
            Err(fail(format!("{method}: a template cannot change a list")))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Characters that Python's `strip` and `split` treat as white space.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

fn of_text(state: &mut State<'_, '_>, value: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let any = |test: fn(char) -> bool| Ok(Value::from(!value.is_empty() && value.chars().all(test)));
    pay(state, value.len())?;
    match method {
        "format" => return str_format(state, value, arguments),
        "split" | "rsplit" => return split(value, method == "rsplit", arguments),
        "strip" | "lstrip" | "rstrip" => {
            let [characters] = bind(arguments, [""])?;
            return strip(value, method, given(characters).as_ref()).map(Value::from);
        }
        "replace" => {
            let [old, new, count] = bind(arguments, ["", " ", "count"])?;
            let (Some(old), Some(new)) = (old, new) else { return Err(fail("replace: expected two texts")) };
            return replace(state, value, text(&old, "replace")?, text(&new, "replace")?, count.as_ref());
        }
        "startswith" | "endswith" => return affix(value, method, arguments),
        "find" | "rfind" | "index" | "rindex" | "count" => return find(value, method, arguments),
        "partition" | "rpartition" => {
            let [separator] = bind(arguments, [""])?;
            let separator = separator.ok_or_else(|| fail(format!("{method}: expected a separator")))?;
            let separator = text(&separator, method)?;
            if separator.is_empty() {
                return Err(fail(format!("{method}: expected a separator, got an empty text")));
            }
            let parts = if method == "partition" { value.split_once(separator) } else { value.rsplit_once(separator) };
            let parts = match parts {
                Some((before, behind)) => [before, separator, behind],
                None if method == "partition" => [value, "", ""],
                None => ["", "", value],
            };
            return Ok(Value::from(Tuple::from(parts.map(Value::from))));
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(arguments, [""])?;
            let affix = affix.ok_or_else(|| fail(format!("{method}: expected a text")))?;
            let affix = text(&affix, method)?;
            let rest = if method == "removeprefix" { value.strip_prefix(affix) } else { value.strip_suffix(affix) };
            return Ok(Value::from(rest.unwrap_or(value)));
        }
        "join" => {
            let [items] = bind(arguments, [""])?;
            return join(state, value, &items.ok_or_else(|| fail("join: expected texts"))?);
        }
        "splitlines" => {
            let [keep] = bind(arguments, ["keepends"])?;
            return Ok(Value::from(lines(value, is_true(keep.as_ref(), false))));
        }
        "zfill" | "ljust" | "rjust" | "center" => return fill(state, value, method, arguments),
        "expandtabs" => {
            let [size] = bind(arguments, ["tabsize"])?;
            return expand_tabs(state, value, size_or(size.as_ref(), 8, "tabsize")?);
        }
        _ => {}
    }
    let result = match method {
        "upper" => Ok(Value::from(value.to_uppercase())),
        "lower" | "casefold" => {
            let lower = value.to_lowercase();
            Ok(Value::from(if method == "casefold" { lower.replace('ß', "ss") } else { lower }))
        }
        "title" => Ok(Value::from(title(value))),
        "capitalize" => Ok(Value::from(capitalize(value))),
        "swapcase" => Ok(Value::from(value.chars().fold(String::with_capacity(value.len()), |mut text, character| {
            if character.is_uppercase() {
                text.extend(character.to_lowercase())
            } else {
                text.extend(character.to_uppercase())
            }
            text
        }))),
        "isalpha" => any(char::is_alphabetic),
        "isalnum" => any(char::is_alphanumeric),
        "isdecimal" => any(is_decimal),
        "isdigit" => any(|character| {
            is_decimal(character) || matches!(character, '²' | '³' | '¹' | '⁰'..='⁹' | '₀'..='₉' | '①'..='⑨')
        }),
        "isnumeric" => any(char::is_numeric),
        "isspace" => any(is_space),
        "isascii" => Ok(Value::from(value.is_ascii())),
        "isprintable" => Ok(Value::from(value.chars().all(is_printable))),
        "isidentifier" => {
            let mut characters = value.chars();
            let first = characters.next().is_some_and(|first| first == '_' || first.is_alphabetic());
            Ok(Value::from(first && characters.all(|character| character == '_' || character.is_alphanumeric())))
        }
        "islower" => Ok(Value::from(value.chars().any(char::is_lowercase) && !value.chars().any(char::is_uppercase))),
        "isupper" => Ok(Value::from(value.chars().any(char::is_uppercase) && !value.chars().any(char::is_lowercase))),
        "istitle" => Ok(Value::from(value.chars().any(char::is_alphabetic) && title(value) == value)),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    let [] = bind(arguments, [])?;
    result
}

/// Whether a character is a digit of one of the Unicode decimal systems that strings use.
fn is_decimal(character: char) -> bool {
    character.is_ascii_digit()
        || matches!(character, '٠'..='٩' | '۰'..='۹' | '०'..='९' | '০'..='৯' | '๐'..='๙' | '０'..='９')
}

fn is_cased(character: char) -> bool {
    character.is_lowercase() || character.is_uppercase()
}

/// Python's `str.title`: a letter after anything but a letter becomes a capital, and `It's` becomes `It'S`.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut within = false;
    for character in text.chars() {
        if within {
            titled.extend(character.to_lowercase());
        } else {
            push_capital(&mut titled, character);
        }
        within = is_cased(character);
    }
    titled
}

/// Appends a letter as a capital. One letter may become two, of which only the first is a capital.
fn push_capital(text: &mut String, character: char) {
    let mut capitals = character.to_uppercase();
    text.extend(capitals.next());
    text.extend(capitals.flat_map(char::to_lowercase));
}

/// Capitalises the first letter, and makes all others lower case.
pub(super) fn capitalize(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    if let Some(first) = characters.next() {
        push_capital(&mut text, first);
    }
    text.push_str(&characters.as_str().to_lowercase());
    text
}

/// Removes white space, or the given characters, from the ends of a string.
pub(super) fn strip<'a>(value: &'a str, method: &str, characters: Option<&Value>) -> Result<&'a str, Error> {
    let characters = match characters {
        Some(characters) => Some(text(characters, method)?),
        None => None,
    };
    let is_stripped = |character: char| characters.map_or_else(|| is_space(character), |all| all.contains(character));
    Ok(match method {
        "lstrip" => value.trim_start_matches(is_stripped),
        "rstrip" => value.trim_end_matches(is_stripped),
        _ => value.trim_matches(is_stripped),
    })
}

fn split(value: &str, from_end: bool, arguments: &[Value]) -> Result<Value, Error> {
    let [separator, most] = bind(arguments, ["sep", "maxsplit"])?;
    let most = usize::try_from(integer_or(most.as_ref(), -1, "maxsplit")?).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match given(separator) {
        Some(separator) => {
            let separator = text(&separator, "sep")?;
            if separator.is_empty() {
                return Err(fail("split: expected a separator, got an empty text"));
            }
            match from_end {
                false => parts.extend(value.splitn(most.saturating_add(1), separator)),
                true => parts.extend(value.rsplitn(most.saturating_add(1), separator)),
            }
        }
        None => {
            let trim = |rest: &'_ str| -> usize {
                if from_end {
                    rest.trim_end_matches(is_space).len()
                } else {
                    rest.len() - rest.trim_start_matches(is_space).len()
                }
            };
            let mut rest = value;
            loop {
                rest = if from_end { &rest[..trim(rest)] } else { &rest[trim(rest)..] };
                let place = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
                match place.filter(|_| parts.len() < most) {
                    Some(place) if from_end => {
                        let behind = &rest[place..];
                        parts.push(behind.trim_start_matches(is_space));
                        rest = &rest[..place];
                    }
                    Some(place) => {
                        parts.push(&rest[..place]);
                        rest = &rest[place..];
                    }
                    None => break,
                }
            }
            parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
        }
    }
    if from_end {
        parts.reverse();
    }
    Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}

/// Computes Python's `value.replace(old, new, count)`.
pub(super) fn replace(
    state: &State<'_, '_>,
    value: &str,
    old: &str,
    new: &str,
    count: Option<&Value>,
) -> Result<Value, Error> {
    let count = usize::try_from(integer_or(given(count.cloned()).as_ref(), -1, "count")?).unwrap_or(usize::MAX);
    let matches = if old.is_empty() { value.chars().count() + 1 } else { value.matches(old).count() };
    pay(state, matches.min(count).saturating_mul(new.len()).saturating_add(value.len()))?;
    Ok(Value::from(value.replacen(old, new, count)))
}

/// The part of a string that the last arguments of a method delimit, in characters, and its beginning.
fn part<'a>(value: &'a str, begin: Option<&Value>, end: Option<&Value>) -> Result<Option<(&'a str, usize)>, Error> {
    if begin.is_none() && end.is_none() {
        return Ok(Some((value, 0)));
    }
    let length = value.chars().count() as i64;
    let place = |place: i64| if place < 0 { (place + length).max(0) } else { place };
    let begin = place(integer_or(given(begin.cloned()).as_ref(), 0, "start")?);
    let end = place(integer_or(given(end.cloned()).as_ref(), length, "end")?).min(length);
    if begin > end {
        return Ok(None);
    }
    let byte = |place: i64| value.char_indices().nth(place as usize).map_or(value.len(), |(index, _)| index);
    Ok(Some((&value[byte(begin)..byte(end)], begin as usize)))
}

fn affix(value: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [affix, begin, end] = bind(arguments, ["", " ", "  "])?;
    let affix = affix.ok_or_else(|| fail(format!("{method}: expected a text")))?;
    let Some((value, _)) = part(value, begin.as_ref(), end.as_ref())? else { return Ok(Value::from(false)) };
    let holds = |affix: &Value| {
        let affix = text(affix, method)?;
        Ok::<_, Error>(if method == "startswith" { value.starts_with(affix) } else { value.ends_with(affix) })
    };
    if !affix.is_tuple() {
        return holds(&affix).map(Value::from);
    }
    for affix in affix.try_iter()? {
        if holds(&affix)? {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn find(value: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [what, begin, end] = bind(arguments, ["", " ", "  "])?;
    let what = what.ok_or_else(|| fail(format!("{method}: expected a text")))?;
    let what = text(&what, method)?;
    let part = part(value, begin.as_ref(), end.as_ref())?;
    if method == "count" {
        let Some((value, _)) = part else { return Ok(Value::from(0)) };
        return Ok(Value::from(if what.is_empty() { value.chars().count() + 1 } else { value.matches(what).count() }));
    }
    let place = part.and_then(|(value, begin)| {
        let index = if method.starts_with('r') { value.rfind(what) } else { value.find(what) }?;
        Some(begin + value[..index].chars().count())
    });
    match place {
        Some(place) => Ok(Value::from(place)),
        None if method.ends_with("index") => Err(fail(format!("{method}: {what:?} is not in the text"))),
        None => Ok(Value::from(-1)),
    }
}

fn join(state: &State<'_, '_>, separator: &str, items: &Value) -> Result<Value, Error> {
    let mut joined = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        let item = text(&item, "join")?;
        pay(state, separator.len() + item.len() + 16)?;
        joined.push_str(if index > 0 { separator } else { "" });
        joined.push_str(item);
    }
    Ok(Value::from(joined))
}

/// Computes Python's `value.splitlines(keep)`.
pub(super) fn lines(value: &str, keep: bool) -> Vec<Value> {
    let is_end = |character: char| {
        matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = value;
    while let Some(end) = rest.find(is_end) {
        let length = match rest[end..].strip_prefix("\r\n") {
            Some(_) => 2,
            None => rest[end..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(Value::from(&rest[..if keep { end + length } else { end }]));
        rest = &rest[end + length..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    lines
}

fn fill(state: &State<'_, '_>, value: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [width, with] = bind(arguments, ["", " "])?;
    if width.is_none() {
        return Err(fail(format!("{method}: expected a width")));
    }
    let with = match &with {
        Some(with) => text(with, method)?,
        None => " ",
    };
    if with.chars().count() != 1 {
        return Err(fail(format!("{method}: expected one character to fill with")));
    }
    let width = size_or(width.as_ref(), 0, "width")?;
    let missing = width.saturating_sub(value.chars().count());
    pay(state, missing.saturating_mul(with.len()).saturating_add(value.len()))?;
    let fill = |count: usize| with.repeat(count);
    Ok(Value::from(match method {
        "ljust" => format!("{value}{}", fill(missing)),
        "rjust" => format!("{}{value}", fill(missing)),
        "center" => {
            // Python's own rounding: for an odd width, the extra space goes to the left.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{value}{}", fill(left), fill(missing - left))
        }
        _ => match value.strip_prefix(['-', '+']) {
            Some(digits) => format!("{}{}{digits}", &value[..1], "0".repeat(missing)),
            None => format!("{}{value}", "0".repeat(missing)),
        },
    }))
}

fn expand_tabs(state: &State<'_, '_>, value: &str, size: usize) -> Result<Value, Error> {
    pay(state, value.matches('\t').count().saturating_mul(size))?;
    let (mut text, mut column) = (String::new(), 0);
    for character in value.chars() {
        match character {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                text.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\t' => {}
            _ => {
                column = if matches!(character, '\n' | '\r') { 0 } else { column + 1 };
                text.push(character);
            }
        }
    }
    Ok(Value::from(text))
}
