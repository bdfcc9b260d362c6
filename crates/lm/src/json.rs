//! Readers of models' JSON files, which reject duplicate keys and git-lfs pointers.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::LmError;

/// First bytes of a git-lfs pointer.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Reads the text of a model's file.
///
/// # Errors
///
/// [`LmError::File`], and [`LmError::Pointer`] for a file that git-lfs has not fetched.
pub(crate) fn read_text(path: &Path) -> Result<String, LmError> {
    let text = std::fs::read_to_string(path).map_err(|source| LmError::File { path: path.to_owned(), source })?;
    refuse_pointer(path, text.as_bytes())?;
    Ok(text)
}

/// Reads a model's JSON file.
///
/// # Errors
///
/// As [`read_text`], and [`LmError::Json`] for text that is not JSON, has a key twice in one object, or is of another
/// type.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, LmError> {
    let fail = |source| LmError::Json { path: path.to_owned(), field: ".".to_owned(), source };
    parse(read_text(path)?.as_bytes()).map_err(fail)
}

/// Parses JSON without duplicate keys.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let Unique(value) = serde_json::from_slice(text)?;
    serde_json::from_value(value)
}

/// Refuses a git-lfs pointer, given the first bytes of a file.
///
/// # Errors
///
/// [`LmError::Pointer`].
pub(crate) fn refuse_pointer(path: &Path, begin: &[u8]) -> Result<(), LmError> {
    if begin.starts_with(POINTER) { Err(LmError::Pointer { path: path.to_owned() }) } else { Ok(()) }
}

/// Refuses a git-lfs pointer where another library reads the file. Other errors are left to that library.
///
/// # Errors
///
/// [`LmError::Pointer`].
pub(crate) fn refuse_pointer_at(path: &Path) -> Result<(), LmError> {
    let mut begin = [0; POINTER.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut begin)) {
        Ok(()) => refuse_pointer(path, &begin),
        Err(_) => Ok(()),
    }
}

/// A JSON value without duplicate keys.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Unique(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            let Unique(value) = entries.next_value()?;
            fields.insert(key, value);
        }
        Ok(Unique(fields.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_twice_in_an_object_is_refused_by_its_name() {
        let refused = |text: &str| parse::<Value>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused(r#"{"a": 1, "a": 1}"#), "duplicate key \"a\" at line 1 column 12");
        assert!(refused(r#"[{"b": {"a": 1, "\u0061": 2}}]"#).starts_with("duplicate key \"a\""));
        let text = r#"{"a": {"a": [1, -2, 0.5, null, true, "x"]}, "b": 18446744073709551615}"#;
        assert_eq!(parse::<Value>(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_pointer_of_git_lfs_is_named_as_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n").unwrap();
        let expected = format!(
            "{}: expected the file itself, got a pointer of git-lfs: `git lfs pull` in its folder fetches the file",
            path.display()
        );
        assert_eq!(read::<Value>(&path).unwrap_err().to_string(), expected);
        assert_eq!(refuse_pointer_at(&path).unwrap_err().to_string(), expected);
        std::fs::write(&path, "{}").unwrap();
        refuse_pointer_at(&path).unwrap();
        refuse_pointer_at(&folder.path().join("none")).unwrap();
    }
}
