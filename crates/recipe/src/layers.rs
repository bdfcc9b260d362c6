//! Layers of a recipe: TOML texts, and their deserialization.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Parses a TOML text as a table.
///
/// # Errors
///
/// The message of the TOML reader, with the line.
pub fn parse(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| error.to_string())
}

/// Deserializes a table.
///
/// # Errors
///
/// [`ReadError`] with the path of the field that cannot be deserialized.
pub fn read<T: DeserializeOwned>(table: Table) -> Result<T, ReadError> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| ReadError {
        field: error.path().to_string(),
        problem: error.into_inner().message().to_owned(),
    })
}

/// A field that cannot be deserialized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}{problem}", if field == "." { String::new() } else { format!("{field}: ") })]
pub struct ReadError {
    /// Path of the field; `.` for the whole table.
    pub field: String,
    /// Error message of the field's type.
    pub problem: String,
}
