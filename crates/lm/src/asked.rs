//! Settings of a growing file, which a command that resumes it must repeat.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::LmError;

/// Compares the current settings with those in a file. `then` ends the error about the first field that differs.
///
/// # Errors
///
/// [`LmError::Field`]; [`LmError::File`] and [`LmError::Json`] for a file that cannot be read.
pub(crate) fn is_the_same(path: &Path, asked: &impl Serialize, then: &str) -> Result<(), LmError> {
    let json = |source| LmError::Json { path: path.to_owned(), field: ".".to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(|source| LmError::File { path: path.to_owned(), source })?;
    let there: Map<String, Value> = strict_json::from_str(&text).map_err(json)?;
    let Value::Object(now) = serde_json::to_value(asked).map_err(json)? else { return Ok(()) };
    for (field, given) in &now {
        let there = there.get(field).unwrap_or(&Value::Null);
        if there != given {
            return Err(LmError::Field {
                path: path.to_owned(),
                field: field.clone(),
                allowed: format!("{there}, {then}"),
                given: format!("{given}; another --out starts over"),
            });
        }
    }
    Ok(())
}
