//! Checks of an untrusted `tokenizer.json`: random tokenization, unbounded growth of texts, and panics of the library.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

use serde::Deserialize;
use serde_json::Value;

use crate::error::TextError;

/// Maximum number of bytes that normalisation may make of one byte.
const MAX_GROWTH: usize = 1024;
/// Maximum length of a tokenized text, in bytes.
const MAX_TEXT: usize = 64 << 20;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls the library, and converts its panics to errors about the file, without printing them.
///
/// # Errors
///
/// [`TextError::Tokenizer`] if the library fails or panics.
pub(super) fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, TextError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                before(panic);
            }
        }));
    });
    let was_guarded = IS_GUARDED.replace(true);
    // The error about the file ends all use of the tokenizer after a panic.
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(was_guarded);
    let problem = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            format!("the tokenizers library fails on it: {message}")
        }
    };
    let problem = problem.chars().take(500).collect();
    Err(TextError::Tokenizer { path: path.to_owned(), problem })
}

/// Rejects a text that is too long to be tokenized at once.
///
/// # Errors
///
/// [`TextError::Tokenizer`] for a text that is too long.
pub(super) fn check_text(path: &Path, text: &str) -> Result<(), TextError> {
    if text.len() > MAX_TEXT {
        let problem = format!("expected a text of at most {MAX_TEXT} bytes, got {}", text.len());
        return Err(TextError::Tokenizer { path: path.to_owned(), problem });
    }
    Ok(())
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    model: Option<Model>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
}

#[derive(Deserialize)]
struct Model {
    dropout: Option<f64>,
}

/// Rejects a tokenizer whose tokens are random, or whose normalisation and pre-tokenization multiply the length of a
/// text.
///
/// # Errors
///
/// [`TextError::Field`] with the name of the field, and [`TextError::Tokenizer`] for a duplicate field.
pub(super) fn check_file(path: &Path, text: &[u8]) -> Result<(), TextError> {
    let raw: Raw = match serde_json::from_slice(text) {
        Ok(raw) => raw,
        // The library takes the last of two fields.
        Err(error) if error.is_data() => {
            return Err(TextError::Tokenizer { path: path.to_owned(), problem: error.to_string() });
        }
        // The library itself reports invalid JSON.
        Err(_) => return Ok(()),
    };
    let refuse = |field: &str, allowed: String, given: String| {
        Err(TextError::Field { path: path.to_owned(), field: field.to_owned(), allowed, given })
    };
    if let Some(dropout) = raw.model.and_then(|model| model.dropout).filter(|dropout| *dropout != 0.0) {
        let allowed = "null or 0, so that a text always has the same tokens".to_owned();
        return refuse("model.dropout", allowed, dropout.to_string());
    }
    let mut grown = 1_usize;
    for (field, step) in [("normalizer", raw.normalizer), ("pre_tokenizer", raw.pre_tokenizer)] {
        grown = grown.saturating_mul(step.as_ref().map_or(1, growth));
        if grown > MAX_GROWTH {
            let allowed = format!("one that makes at most {MAX_GROWTH} bytes of one");
            return refuse(field, allowed, "one that may make more".to_owned());
        }
    }
    Ok(())
}

/// Maximum number of bytes that a normaliser or pre-tokenizer makes of one byte, including those that it adds once at
/// the beginning.
fn growth(step: &Value) -> usize {
    let length = |field: &str| step[field].as_str().map_or(0, str::len);
    match step["type"].as_str() {
        Some("Sequence") => {
            let parts =
                ["normalizers", "pretokenizers"].into_iter().filter_map(|field| step[field].as_array()).flatten();
            parts.map(growth).fold(1, usize::saturating_mul)
        }
        // The length of a literal pattern; a regular expression may match the empty text before every character.
        Some("Replace") => match step["pattern"]["String"].as_str() {
            Some(pattern) if !pattern.is_empty() => length("content").div_ceil(pattern.len()).max(1),
            _ => 1 + length("content"),
        },
        Some("Prepend") => 1 + length("prepend"),
        // Compatibility forms make 18 characters of one, decompositions 4.
        Some("NFKC" | "NFKD") => 11,
        Some("NFC" | "NFD") => 3,
        Some("ByteLevel") => 2,
        // Each space becomes the replacement, and one may be added at the beginning.
        Some("Metaspace") => 2 * length("replacement").max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_panic_of_the_library_is_the_file_s_error() {
        let failed = guarded::<()>("tokenizer.json".as_ref(), || panic!("index out of bounds"));
        assert_eq!(
            failed.unwrap_err().to_string(),
            "tokenizer.json: the tokenizers library fails on it: index out of bounds"
        );
    }

    #[test]
    fn chance_and_growth_are_refused_by_name() {
        let check = |file: Value| check_file("tokenizer.json".as_ref(), file.to_string().as_bytes());
        let refused = |file: Value| check(file).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"model": {"dropout": 0.1}})),
            "tokenizer.json: model.dropout: expected null or 0, so that a text always has the same tokens, got 0.1"
        );
        let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let normalizer = json!({"type": "Sequence", "normalizers": vec![doubling; 40]});
        assert!(refused(json!({"normalizer": normalizer})).starts_with("tokenizer.json: normalizer: "));
        let llama = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        check(json!({"normalizer": llama, "model": {"dropout": null}})).unwrap();
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false});
        let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": vec![bytes.clone(); 40]});
        assert!(refused(json!({"pre_tokenizer": pre_tokenizer})).starts_with("tokenizer.json: pre_tokenizer: "));
        let twice =
            check_file("tokenizer.json".as_ref(), br#"{"model": {"dropout": 0.5}, "model": {"dropout": null}}"#);
        assert!(twice.unwrap_err().to_string().contains("duplicate field `model`"));
        check(json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "replacement": "▁"}, bytes]}})).unwrap();
        check(json!({"normalizer": {"type": "NFKC"}, "model": {"dropout": 0.0}})).unwrap();
    }
}
