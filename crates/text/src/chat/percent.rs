//! Formatting as Python's `%` and `str.format` do it, with limited widths.

use minijinja::formatting::{FormatStyle, format as engine_format};
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::arguments::{fail, integer};
use super::bounds::pay;
use super::python_text::{python_repr, python_str};

/// Maximum width and precision.
const MAX_WIDTH: usize = 100_000;

/// Formats as `format % arguments` does.
///
/// # Errors
///
/// An error for a format that Python rejects with these arguments.
pub(super) fn format(state: &State<'_, '_>, format: &str, arguments: &Value) -> Result<Value, Error> {
    let is_tuple = arguments.is_tuple();
    let positional: Vec<Value> = if is_tuple { arguments.try_iter()?.collect() } else { vec![arguments.clone()] };
    let map = if arguments.kind() == ValueKind::Map { Some(arguments) } else { None };
    percent(state, format, &positional, map)
}

/// The `format` filter, which formats its arguments as `%` does.
pub(super) fn filter(state: &State<'_, '_>, format: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
    let map: Vec<(Value, Value)> =
        named.args().map(|name| Ok((Value::from(name), named.get(name)?))).collect::<Result<_, Error>>()?;
    match (positional, map.is_empty()) {
        (_, true) => percent(state, format, positional, None),
        ([], false) => percent(state, format, &[], Some(&Value::from_pairs(map))),
        _ => Err(fail("format: expected arguments by place or by name, got both")),
    }
}

/// Formats as `format.format(arguments)` does.
///
/// # Errors
///
/// An error for a format that Python rejects with these arguments.
pub(super) fn str_format(state: &State<'_, '_>, format: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
    let mut fields = Fields { state, positional, named, unnamed: 0, has_numbers: false };
    fields.text(format, 0).map(Value::from)
}

struct Fields<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    positional: &'a [Value],
    named: Kwargs,
    /// Number of fields without a name so far.
    unnamed: usize,
    has_numbers: bool,
}

impl Fields<'_, '_, '_> {
    fn text(&mut self, format: &str, depth: usize) -> Result<String, Error> {
        let (mut text, mut rest) = (String::new(), format);
        while let Some(index) = rest.find(['{', '}']) {
            let (before, bracket) = (&rest[..index], &rest[index..=index]);
            text.push_str(before);
            rest = &rest[index + 1..];
            if let Some(behind) = rest.strip_prefix(bracket) {
                text.push_str(bracket);
                rest = behind;
                continue;
            }
            if bracket == "}" || depth > 1 {
                return Err(fail("format: a } without its {, or a field within a field within a field"));
            }
            let mut open = 1_usize;
            let end = rest.find(|character| {
                open = match character {
                    '{' => open + 1,
                    '}' => open - 1,
                    _ => open,
                };
                open == 0
            });
            let end = end.ok_or_else(|| fail("format: a field does not end"))?;
            let field = self.field(&rest[..end], depth)?;
            pay(self.state, field.len() + 64)?;
            text.push_str(&field);
            rest = &rest[end + 1..];
        }
        text.push_str(rest);
        Ok(text)
    }

    /// Formats a field `name!conversion:format`.
    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (name, format) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = name.split_once('!').map_or((name, None), |(name, letter)| (name, Some(letter)));
        let value = self.value(name)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::from(python_str(self.state, &value)?),
            Some("r" | "a") => Value::from(python_repr(&value)?),
            Some(other) => return Err(fail(format!("format: expected one of !r, !s and !a, got !{other}"))),
        };
        let format = self.text(format, depth + 1)?;
        match value.kind() {
            _ if format.is_empty() => python_str(self.state, &value),
            ValueKind::String | ValueKind::Number | ValueKind::Bool => {
                pay(self.state, width(&format)?)?;
                engine_format(FormatStyle::StrFormat, &format!("{{:{format}}}"), &[value])
            }
            kind => Err(fail(format!("format: {kind} is written as it is, not as {format}"))),
        }
    }

    /// Looks up the value at a path such as `0.name[key]`.
    fn value(&mut self, path: &str) -> Result<Value, Error> {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let (name, mut path) = path.split_at(end);
        let mut value = match name {
            "" => {
                self.unnamed += 1;
                self.positional.get(self.unnamed - 1).cloned()
            }
            _ if name.bytes().all(|digit| digit.is_ascii_digit()) => {
                self.has_numbers = true;
                name.parse().ok().and_then(|index: usize| self.positional.get(index)).cloned()
            }
            _ => self.named.get(name).ok(),
        }
        .filter(|_| self.unnamed == 0 || !self.has_numbers)
        .ok_or_else(|| fail(format!("format: no argument for {{{name}}}")))?;
        while !path.is_empty() {
            let (key, rest) = match path.strip_prefix('[') {
                Some(rest) => rest.split_once(']').ok_or_else(|| fail("format: a [ without its ]"))?,
                None => {
                    let rest = path.strip_prefix('.').unwrap_or(path);
                    rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
                }
            };
            if key.is_empty() || key.starts_with('_') {
                return Err(fail("format: a field is empty or begins with an underscore"));
            }
            value = value.get_item(&key.parse::<u32>().map_or_else(|_| Value::from(key), Value::from))?;
            path = rest;
        }
        Ok(value)
    }
}

/// Sum of the numbers at the beginning of a format: its width and precision.
fn width(format: &str) -> Result<usize, Error> {
    let end = format.find('}').unwrap_or(format.len());
    let numbers =
        format[..end].split(|character: char| !character.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(number).sum()
}

fn number(digits: &str) -> Result<usize, Error> {
    let number = if digits.is_empty() { Ok(0) } else { digits.parse() };
    number
        .ok()
        .filter(|number| *number <= MAX_WIDTH)
        .ok_or_else(|| fail(format!("format: expected a width of at most {MAX_WIDTH}, got {digits}")))
}

fn percent(state: &State<'_, '_>, format: &str, positional: &[Value], map: Option<&Value>) -> Result<Value, Error> {
    let mut rest = format;
    let mut text = String::new();
    let mut arguments = positional.iter();
    let mut is_by_name = false;
    while let Some(index) = rest.find('%') {
        text.push_str(&rest[..index]);
        rest = &rest[index + 1..];
        let mut argument = None;
        if let Some(behind) = rest.strip_prefix('(') {
            let (name, behind) = behind.split_once(')').ok_or_else(|| fail("%: a name does not end"))?;
            let map = map.ok_or_else(|| fail("%: expected a map"))?;
            let value = map.get_item(&Value::from(name))?;
            if value.is_undefined() {
                return Err(fail(format!("%: no value has the name {name}")));
            }
            (argument, is_by_name) = (Some(value), true);
            rest = behind;
        }
        let flags_end = rest.find(|flag| !"-+ #0".contains(flag)).unwrap_or(rest.len());
        let flags = &rest[..flags_end];
        rest = &rest[flags_end..];
        let mut next = || arguments.next().cloned().ok_or_else(|| fail("%: not enough arguments"));
        let mut size = |rest: &mut &str| -> Result<Option<i64>, Error> {
            if let Some(behind) = rest.strip_prefix('*') {
                *rest = behind;
                let size = integer(&next()?).ok_or_else(|| fail("%: * expects an integer"))?;
                number(&size.unsigned_abs().to_string())?;
                return Ok(Some(size as i64));
            }
            let end = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
            let digits = &rest[..end];
            *rest = &rest[end..];
            if digits.is_empty() { Ok(None) } else { Ok(Some(number(digits)? as i64)) }
        };
        let width = size(&mut rest)?;
        let precision = match rest.strip_prefix('.') {
            Some(behind) => {
                rest = behind;
                Some(size(&mut rest)?.unwrap_or(0).max(0) as usize)
            }
            None => None,
        };
        let conversion = rest.chars().next().ok_or_else(|| fail("%: a format does not end"))?;
        rest = &rest[conversion.len_utf8()..];
        if conversion == '%' {
            text.push('%');
            continue;
        }
        let argument = match argument {
            Some(argument) => argument,
            None => next()?,
        };
        let (sign, digits) = convert(state, conversion, precision, flags, &argument)?;
        let length = sign.chars().count() + digits.chars().count();
        let padding = usize::try_from(width.unwrap_or(0).unsigned_abs()).unwrap_or(0).saturating_sub(length);
        pay(state, padding + length)?;
        let is_numeric = "diuxXoeEfFgG".contains(conversion);
        if flags.contains('-') || width.is_some_and(i64::is_negative) {
            text.extend([sign.as_str(), &digits, &" ".repeat(padding)]);
        } else if flags.contains('0') && is_numeric {
            text.extend([sign.as_str(), &"0".repeat(padding), &digits]);
        } else {
            text.extend([" ".repeat(padding).as_str(), &sign, &digits]);
        }
    }
    text.push_str(rest);
    // A map may have more entries than the format uses.
    if !is_by_name && map.is_none() && arguments.next().is_some() {
        return Err(fail("%: not all arguments are formatted"));
    }
    Ok(Value::from(text))
}

/// Converts an argument to its sign and prefix, and its digits or text.
fn convert(
    state: &State<'_, '_>,
    conversion: char,
    precision: Option<usize>,
    flags: &str,
    argument: &Value,
) -> Result<(String, String), Error> {
    let cut = |text: String| match precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    };
    let sign = |is_negative: bool| match is_negative {
        true => "-",
        false if flags.contains('+') => "+",
        false if flags.contains(' ') => " ",
        false => "",
    };
    match conversion {
        's' => Ok((String::new(), cut(python_str(state, argument)?))),
        'r' | 'a' => Ok((String::new(), cut(python_repr(argument)?))),
        'c' => {
            let character = match (argument.as_str(), integer(argument)) {
                (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
                (_, Some(code)) => u32::try_from(code)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(|| fail("%c: no character"))?
                    .to_string(),
                _ => return Err(fail("%c: expected one character")),
            };
            Ok((String::new(), character))
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let float = match argument.kind() {
                ValueKind::Number => f64::try_from(argument.clone()).ok().filter(|_| "diu".contains(conversion)),
                _ => None,
            };
            let integer = integer(argument)
                .or_else(|| float.filter(|float| float.is_finite()).map(|float| float.trunc() as i128));
            let integer =
                integer.ok_or_else(|| fail(format!("%{conversion}: expected a number, got {}", argument.kind())))?;
            let size = integer.unsigned_abs();
            let (prefix, digits) = match conversion {
                'x' => ("0x", format!("{size:x}")),
                'X' => ("0X", format!("{size:X}")),
                'o' => ("0o", format!("{size:o}")),
                _ => ("", size.to_string()),
            };
            let prefix = if flags.contains('#') { prefix } else { "" };
            let least = precision.unwrap_or(0);
            pay(state, least)?;
            Ok((format!("{}{prefix}", sign(integer < 0)), format!("{digits:0>least$}")))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = super::arguments::number(argument)
                .ok_or_else(|| fail(format!("%{conversion}: expected a number, got {}", argument.kind())))?;
            let precision = precision.unwrap_or(6);
            pay(state, precision + 400)?;
            let size = number.abs();
            let digits = match conversion.to_ascii_lowercase() {
                _ if size.is_infinite() => "inf".to_owned(),
                _ if size.is_nan() => "nan".to_owned(),
                'f' => format!("{size:.precision$}"),
                'e' => exponential(size, precision),
                _ => general(size, precision.max(1)),
            };
            let digits = if conversion.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
            Ok((sign(number.is_sign_negative() && !number.is_nan()).to_owned(), digits))
        }
        _ => Err(fail(format!("%: expected one of srcdiuxXoeEfFgG%, got {conversion}"))),
    }
}

fn exponential(size: f64, precision: usize) -> String {
    let text = format!("{size:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn general(size: f64, precision: usize) -> String {
    let text = exponential(size, precision - 1);
    let exponent: i64 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if (-4..precision as i64).contains(&exponent) {
        let places = usize::try_from(precision as i64 - 1 - exponent).unwrap_or(0);
        trimmed(&format!("{size:.places$}"))
    } else {
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        format!("{}e{exponent}", trimmed(digits))
    }
}
