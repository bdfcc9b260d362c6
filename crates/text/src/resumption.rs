//! Settings of an interrupted command, which the resumed command must repeat.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::TextError;

/// Compares the current settings with those in a file. `then` completes the error about the first difference, for
/// example "as the answers there were generated with" after "expected 1,".
///
/// # Errors
///
/// [`TextError::Field`] for the first difference; [`TextError::File`] and [`TextError::Json`] for a file that cannot be
/// read.
pub fn is_the_same(path: &Path, current: &impl Serialize, then: &str) -> Result<(), TextError> {
    let json = |source| TextError::Json { path: path.to_owned(), field: ".".to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(|source| TextError::File { path: path.to_owned(), source })?;
    let there: Map<String, Value> = strict_json::from_str(&text).map_err(json)?;
    let Value::Object(now) = serde_json::to_value(current).map_err(json)? else { return Ok(()) };
    for (field, given) in &now {
        let there = there.get(field).unwrap_or(&Value::Null);
        if there != given {
            return Err(TextError::Field {
                path: path.to_owned(),
                field: field.clone(),
                allowed: format!("{there}, {then}"),
                given: format!("{given}; another --out starts over"),
            });
        }
    }
    Ok(())
}
