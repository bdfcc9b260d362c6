//! Filters of numbers.

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::super::arguments::{bind, fail, integer, integer_or, is_true, number, subject};
use super::Filter;

pub(super) const FILTERS: [(&str, Filter); 5] =
    [("int", int), ("float", float), ("round", round), ("abs", abs), ("filesizeformat", filesizeformat)];

fn int(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [default, base] = bind(arguments, ["default", "base"])?;
    let default = default.unwrap_or_else(|| Value::from(0));
    let base = u32::try_from(integer_or(base.as_ref(), 10, "base")?).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| fail("int: base: expected 2 to 36"))?;
    if value.is_undefined() {
        return Err(fail("int: the value is undefined"));
    }
    let from_float = |number: f64| if number.is_finite() { whole(number.trunc()) } else { default.clone() };
    Ok(match value.as_str() {
        Some(text) => match parse_int(text, base) {
            Some(number) => whole_of(number),
            None => parse_float(text).map_or_else(|| default.clone(), from_float),
        },
        None => match (integer(value), number(value)) {
            (Some(number), _) => whole_of(number),
            (None, Some(number)) => from_float(number),
            (None, None) => default.clone(),
        },
    })
}

fn whole_of(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

fn whole(number: f64) -> Value {
    whole_of(number as i128)
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let has_prefix = !prefix.is_empty() && digits.get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let digits = if has_prefix { digits[2..].strip_prefix('_').unwrap_or(&digits[2..]) } else { digits };
    if digits.is_empty() || digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    i128::from_str_radix(&digits.replace('_', ""), base).ok().map(|number| sign * number)
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn float(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [default] = bind(arguments, ["default"])?;
    if value.is_undefined() {
        return Err(fail("float: the value is undefined"));
    }
    let number = value.as_str().map_or_else(|| number(value), parse_float);
    Ok(number.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
}

fn round(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [precision, method] = bind(arguments, ["precision", "method"])?;
    let precision = integer_or(precision.as_ref(), 0, "precision")?.clamp(-400, 400);
    let rounded = |number: f64, round: fn(f64) -> f64| {
        let scale = 10_f64.powi(precision as i32);
        Ok(Value::from(round(number * scale) / scale))
    };
    let given = number(value).ok_or_else(|| fail(format!("round: expected a number, got {}", value.kind())))?;
    match method.as_ref().map_or(Some("common"), Value::as_str) {
        Some("ceil") => rounded(given, f64::ceil),
        Some("floor") => rounded(given, f64::floor),
        Some("common") if value.kind() != ValueKind::Number || value.is_integer() => match precision {
            0.. => Ok(value.clone()),
            _ => Ok(whole(rounded(given, f64::round_ties_even).and_then(f64::try_from)?)),
        },
        Some("common") => match usize::try_from(precision) {
            Ok(places) => format!("{given:.places$}")
                .parse()
                .map(|number: f64| Value::from(number))
                .map_err(|_| fail("round: no number")),
            Err(_) => rounded(given, f64::round_ties_even),
        },
        _ => Err(fail("round: method: expected one of common, ceil, floor")),
    }
}

fn abs(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = subject(arguments)?;
    match (integer(value), number(value)) {
        (Some(number), _) => number.checked_abs().map(whole_of).ok_or_else(|| fail("abs: too large")),
        (None, Some(number)) => Ok(Value::from(number.abs())),
        (None, None) => Err(fail(format!("abs: expected a number, got {}", value.kind()))),
    }
}

fn filesizeformat(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [binary] = bind(arguments, ["binary"])?;
    let binary = is_true(binary.as_ref(), false);
    let bytes = value.as_str().map_or_else(|| number(value), parse_float);
    let bytes = bytes.ok_or_else(|| fail(format!("filesizeformat: expected a number, got {}", value.kind())))?;
    let (base, letters) = if binary { (1024.0, "iB") } else { (1000.0, "B") };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{bytes:.0} Bytes")));
    }
    let mut unit: f64 = base;
    let names = if binary { "KMGTPEZY" } else { "kMGTPEZY" };
    for (index, name) in names.char_indices() {
        unit *= base;
        if bytes < unit || index + 1 == names.len() {
            return Ok(Value::from(format!("{:.1} {name}{letters}", base * bytes / unit)));
        }
    }
    Err(fail("filesizeformat: too large"))
}
