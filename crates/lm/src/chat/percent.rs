//! Formatting as Python's `%` and `str.format` do it, with widths that the fuel pays for.

use minijinja::formatting::{FormatStyle, format as engine_format};
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::arguments::{fail, integer};
use super::bounds::pay;
use super::python_text::{python_repr, python_str};

/// The largest width and precision.
const MAX_WIDTH: usize = 100_000;

/// `format % arguments`.
///
/// # Errors
///
/// For a format that Python refuses with these arguments.
pub(super) fn format(state: &State<'_, '_>, format: &str, arguments: &Value) -> Result<Value, Error> {
    let is_tuple = arguments.is_tuple();
    let positional: Vec<Value> = if is_tuple { arguments.try_iter()?.collect() } else { vec![arguments.clone()] };
    let map = if arguments.kind() == ValueKind::Map { Some(arguments) } else { None };
    percent(state, format, &positional, map)
}

/// The `format` filter: `%` with its arguments.
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

/// `format.format(arguments)`.
pub(super) fn str_format(state: &State<'_, '_>, format: &str, arguments: &[Value]) -> Result<Value, Error> {
    // A width may be an argument itself, and a field a path through a value to what the engine hides.
    if format.contains("._") || format.contains("[_") {
        return Err(fail("format: a field begins with an underscore"));
    }
    let nested = format.split('{').skip(1).any(|field| field.contains(':') && !field.contains('}'));
    let (positional, _): (&[Value], Kwargs) = from_args(arguments)?;
    if nested && positional.iter().filter_map(integer).any(|width| width.unsigned_abs() > MAX_WIDTH as u128) {
        return Err(fail(format!("format: expected a width of at most {MAX_WIDTH}")));
    }
    let mut bytes = if nested { MAX_WIDTH.saturating_mul(format.matches(":{").count()) } else { 0 };
    for field in format.split(':').skip(1) {
        bytes = bytes.saturating_add(width(field)?);
    }
    for argument in positional {
        bytes = bytes.saturating_add(python_str(state, argument)?.len());
    }
    pay(state, bytes)?;
    engine_format(FormatStyle::StrFormat, format, arguments).map(Value::from)
}

/// The sum of the numbers at the beginning of a format: a width and a precision.
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
                return Err(fail(format!("%: no value is called {name}")));
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
    // A map may hold more than is asked for.
    if !is_by_name && map.is_none() && arguments.next().is_some() {
        return Err(fail("%: not all arguments are formatted"));
    }
    Ok(Value::from(text))
}

/// The sign and prefix, and the digits or the text.
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
