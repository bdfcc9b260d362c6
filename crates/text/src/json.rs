//! Strict reading of models' JSON files: duplicate keys and git-lfs pointers are rejected.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::TextError;

/// First bytes of a git-lfs pointer.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Reads the text of a model's file.
///
/// # Errors
///
/// [`TextError::File`], and [`TextError::Pointer`] for a file that git-lfs has not fetched.
pub fn read_text(path: &Path) -> Result<String, TextError> {
    let text = std::fs::read_to_string(path).map_err(|source| TextError::File { path: path.to_owned(), source })?;
    refuse_pointer(path, text.as_bytes())?;
    Ok(text)
}

/// Reads a model's JSON file.
///
/// # Errors
///
/// As [`read_text`], and [`TextError::Json`] for text that is not JSON, has a key twice in one object, or is of another
/// type.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, TextError> {
    let fail = |source| TextError::Json { path: path.to_owned(), field: ".".to_owned(), source };
    strict_json::from_str(&read_text(path)?).map_err(fail)
}

/// Rejects a git-lfs pointer, given the first bytes of a file.
///
/// # Errors
///
/// [`TextError::Pointer`] for a pointer.
pub fn refuse_pointer(path: &Path, begin: &[u8]) -> Result<(), TextError> {
    if begin.starts_with(POINTER) { Err(TextError::Pointer { path: path.to_owned() }) } else { Ok(()) }
}

/// Rejects a git-lfs pointer in place of a file that another library reads. That library reports all other errors.
///
/// # Errors
///
/// [`TextError::Pointer`] for a pointer.
pub fn refuse_pointer_at(path: &Path) -> Result<(), TextError> {
    let mut begin = [0; POINTER.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut begin)) {
        Ok(()) => refuse_pointer(path, &begin),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

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
