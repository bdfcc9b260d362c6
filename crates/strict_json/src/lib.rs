//! A JSON reader that rejects duplicate keys and arrays in place of objects.
//!
//! `serde_json` keeps the last of two equal keys, and reads an array as a struct whose fields it lists in order. Either
//! can silently reverse the meaning. This crate makes both an error, at any depth and for any type, and skips a byte
//! order mark before the text:
//!
//! ```
//! use serde_json::Value;
//!
//! let error = strict_json::from_str::<Value>(r#"{"side": {"reward": [1, 0], "reward": [0, 1]}}"#).unwrap_err();
//! assert_eq!(error.to_string(), r#"duplicate key "reward" at line 1 column 36"#);
//!
//! #[derive(Debug, PartialEq, serde::Deserialize)]
//! struct Pair { chosen: f64, rejected: f64 }
//! let error = strict_json::from_str::<Pair>("[1, 2]").unwrap_err();
//! assert_eq!(error.to_string(), "expected an object, got an array at line 1 column 1");
//!
//! let pair = strict_json::from_str::<Pair>("\u{feff}{\"chosen\": 1, \"rejected\": 2}")?;
//! assert_eq!(pair, Pair { chosen: 1.0, rejected: 2.0 });
//! # Ok::<(), serde_json::Error>(())
//! ```

mod strict;

use serde::de::DeserializeOwned;

pub use strict::Strict;

/// Byte order mark, with which some programs begin a text in UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Reads a value from a whole text.
///
/// # Errors
///
/// As [`serde_json::from_str`], and for a duplicate key or an array in place of a struct.
pub fn from_str<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    from_slice(text.as_bytes())
}

/// Reads a value from a whole text in UTF-8.
///
/// # Errors
///
/// As [`from_str`].
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    from_slice_with_path(text).map_err(serde_path_to_error::Error::into_inner)
}

/// Reads a value as [`from_slice`], with an error that names the field in which reading failed.
///
/// ```
/// let error = strict_json::from_slice_with_path::<std::collections::BTreeMap<String, [f64; 2]>>(br#"{"a": [1, "x"]}"#);
/// assert!(error.unwrap_err().to_string().starts_with("a[1]: invalid type: string"));
/// ```
///
/// # Errors
///
/// As [`from_str`].
pub fn from_slice_with_path<T: DeserializeOwned>(
    text: &[u8],
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut json = serde_json::Deserializer::from_slice(without_byte_order_mark(text));
    let value = serde_path_to_error::deserialize(Strict(&mut json))?;
    let whole = json.end().map(|()| value);
    whole.map_err(|error| serde_path_to_error::Error::new(serde_path_to_error::Track::new().path(), error))
}

/// A text without the byte order mark that it may begin with.
///
/// ```
/// assert_eq!(strict_json::without_byte_order_mark("\u{feff}{}".as_bytes()), b"{}");
/// ```
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(text)
}
