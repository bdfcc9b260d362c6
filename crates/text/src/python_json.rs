//! Formatting of JSON as Python's `json.dumps` formats it, which is how `tojson` formats it in a chat template.
//!
//! A model is trained on exactly these spaces, and `{"a": 1}` has other tokens than `{"a":1}`.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Options of `json.dumps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonStyle {
    /// Indentation of each level of nesting; `None` writes everything on one line.
    pub indent: Option<String>,
    /// Separator between items.
    pub item_separator: String,
    /// Separator between a key and its value.
    pub key_separator: String,
    /// Whether characters outside ASCII are written as `\uXXXX`.
    pub ascii: bool,
}

impl JsonStyle {
    /// Python's default separators, without escapes of characters outside ASCII.
    pub fn new(indent: Option<String>) -> Self {
        let item_separator = if indent.is_some() { "," } else { ", " }.to_owned();
        Self { indent, item_separator, key_separator: ": ".to_owned(), ascii: false }
    }
}

/// Formats a value as JSON.
///
/// # Errors
///
/// An error for a value that JSON cannot represent, such as a map whose keys are lists.
///
/// # Examples
///
/// ```
/// use text::python_json::{JsonStyle, python_json};
///
/// assert_eq!(python_json(&("é", [1.0, 1e16]), &JsonStyle::new(None))?, r#"["é", [1.0, 1e+16]]"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn python_json(value: &impl Serialize, style: &JsonStyle) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let writer = Writer { style, level: 0, filled: false };
    value.serialize(&mut Serializer::with_formatter(&mut bytes, writer))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Formats a float as Python's `repr` does.
pub(crate) fn python_float(value: f64) -> String {
    // Rust's debug format and Python's `repr` are both the shortest text that reads back, with exponents from the same
    // sizes on; only the exponents are written differently.
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text.to_ascii_lowercase(),
        Some((digits, exponent)) => {
            let digits = digits.strip_suffix(".0").unwrap_or(digits);
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

struct Writer<'a> {
    style: &'a JsonStyle,
    level: usize,
    /// Whether the current list or map has an item already.
    filled: bool,
}

impl Writer<'_> {
    fn new_line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = &self.style.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| writer.write_all(indent.as_bytes()))
    }

    fn begin<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.filled = false;
        writer.write_all(bracket)
    }

    fn item<W: ?Sized + io::Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.style.item_separator.as_bytes())?;
        }
        self.new_line(writer)
    }

    fn end<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level -= 1;
        if self.filled {
            self.new_line(writer)?;
        }
        writer.write_all(bracket)
    }
}

impl Formatter for Writer<'_> {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.style.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        fragment.chars().try_for_each(|character| {
            if character.is_ascii() {
                return write!(writer, "{character}");
            }
            character.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        })
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.style.key_separator.as_bytes())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each expectation is the output of Python 3.11 for `json.dumps(value, ensure_ascii=False)`.
    #[test]
    fn one_line_is_as_python_writes_it() {
        let python = |value| python_json(&value, &JsonStyle::new(None)).unwrap();
        assert_eq!(python(json!({"a": [1, 2.5, null, true], "b": {}})), r#"{"a": [1, 2.5, null, true], "b": {}}"#);
        assert_eq!(python(json!([])), "[]");
        assert_eq!(python(json!("<b>'é\"\n\u{1f600}\u{1}")), "\"<b>'é\\\"\\n\u{1f600}\\u0001\"");
        assert_eq!(
            python(json!([1e16, 1e15, 1.5e-5, 0.0001, 1e22, 1e-7])),
            "[1e+16, 1000000000000000.0, 1.5e-05, 0.0001, 1e+22, 1e-07]"
        );
    }

    #[test]
    fn indented_lines_end_without_a_space() {
        let style = JsonStyle::new(Some("  ".to_owned()));
        let text = python_json(&json!({"a": [1, 2], "b": [], "c": {"d": 1}}), &style).unwrap();
        assert_eq!(text, "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": [],\n  \"c\": {\n    \"d\": 1\n  }\n}");
    }

    #[test]
    fn ascii_writes_surrogate_pairs() {
        let style = JsonStyle { ascii: true, ..JsonStyle::new(None) };
        assert_eq!(python_json(&"é\u{1f600}", &style).unwrap(), r#""\u00e9\ud83d\ude00""#);
    }
}
