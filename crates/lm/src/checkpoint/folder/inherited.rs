//! Files other than weights that a new model takes over from the folder of the model it was made from.
//!
//! A model's folder may come from a stranger, and the new model may be published. So links that lead out of the folder
//! are not followed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use text::chat::CHAT_TEMPLATE_FILE;
use text::json;
use text::tokens::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};

use super::at;
use crate::checkpoint::config::{CONFIG_FILE, Dtype, parse_config};
use crate::checkpoint::generation_config::{GENERATION_CONFIG_FILE, with_ends};
use crate::error::LmError;
use crate::transformer::model::{HEAD, Shape};

/// Files that are copied unchanged if they exist.
pub(super) const COPIED: [&str; 9] = [
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    CHAT_TEMPLATE_FILE,
    SPECIAL_TOKENS_FILE,
    "added_tokens.json",
    GENERATION_CONFIG_FILE,
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];
/// Name of the file of special tokens by their roles, which older programs read.
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// Role of the token that ends a response.
const EOS_TOKEN: &str = "eos_token";

/// A model's folder, and replacements for some of its files.
#[derive(Clone, Debug)]
pub struct Inherited<'a> {
    /// Folder that the files are copied from.
    pub source: &'a Path,
    /// Chat template that replaces the folder's.
    pub chat_template: Option<PathBuf>,
    /// File that replaces the folder's `generation_config.json`.
    pub generation_config: Option<PathBuf>,
    /// Token that replaces the tokenizer's `eos_token`, and its id.
    pub eos_token: Option<(String, u32)>,
    /// Tokens with which the model was trained to end its responses.
    pub ends: Vec<u32>,
}

impl<'a> Inherited<'a> {
    /// Takes over all files of a folder without replacements.
    pub fn new(source: &'a Path) -> Self {
        Self { source, chat_template: None, generation_config: None, eos_token: None, ends: Vec::new() }
    }

    /// Rejects a folder in which a file to be copied is a link to the outside.
    ///
    /// # Errors
    ///
    /// As [`within`].
    pub(crate) fn refuse_outside(&self) -> Result<(), LmError> {
        COPIED.into_iter().chain([CONFIG_FILE]).try_for_each(|name| within(self.source, name).map(|_| ()))
    }

    /// Writes the configuration of a model with these parameters, and its other files.
    ///
    /// # Errors
    ///
    /// [`LmError::File`], [`LmError::Json`], and [`LmError::Outside`] for a file that is a link out of the source's
    /// folder.
    pub(super) fn write(
        &self,
        folder: &Path,
        parameters: &[(Shape, &tch::Tensor)],
        dtype: Dtype,
    ) -> Result<(), LmError> {
        let mut fields = self.config()?;
        // The configuration must name the type in which the weights are written.
        let name = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        fields.insert(name.to_owned(), dtype.to_string().into());
        if self.parsed_config()?.tied_embeddings && parameters.iter().any(|(shape, _)| shape.name == HEAD) {
            fields.insert("tie_word_embeddings".to_owned(), false.into());
        }
        if let Some((_, id)) = &self.eos_token {
            fields.insert("eos_token_id".to_owned(), (*id).into());
        }
        write_json(&folder.join(CONFIG_FILE), fields)?;
        for name in COPIED {
            self.copy(folder, name)?;
        }
        self.write_changes(folder)
    }

    /// Writes the files that an adapter's folder needs besides the adapter: those that differ from the base model's.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(crate) fn write_changes(&self, folder: &Path) -> Result<(), LmError> {
        if let Some(from) = &self.chat_template {
            std::fs::copy(from, folder.join(CHAT_TEMPLATE_FILE)).map_err(at(from))?;
        }
        if let Some(from) = &self.generation_config {
            std::fs::copy(from, folder.join(GENERATION_CONFIG_FILE)).map_err(at(from))?;
        }
        if let Some((token, _)) = &self.eos_token {
            self.copy(folder, TOKENIZER_FILE)?;
            for name in [TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE] {
                let Some(from) = within(self.source, name)? else { continue };
                let mut fields: Map<String, Value> = json::read(&from)?;
                if name == TOKENIZER_CONFIG_FILE || fields.contains_key(EOS_TOKEN) {
                    fields.insert(EOS_TOKEN.to_owned(), token.clone().into());
                }
                write_json(&folder.join(name), fields)?;
            }
        }
        if self.ends.is_empty() {
            return Ok(());
        }
        _ = within(self.source, GENERATION_CONFIG_FILE)?;
        match with_ends(self.source, &self.config()?, &self.parsed_config()?.eos, &self.ends)? {
            Some(fields) => write_json(&folder.join(GENERATION_CONFIG_FILE), fields),
            None => Ok(()),
        }
    }

    /// Copies a file if it exists in the source.
    fn copy(&self, folder: &Path, name: &str) -> Result<(), LmError> {
        let Some(from) = within(self.source, name)? else { return Ok(()) };
        std::fs::copy(&from, folder.join(name)).map_err(at(&from))?;
        Ok(())
    }

    fn config_path(&self) -> Result<PathBuf, LmError> {
        Ok(within(self.source, CONFIG_FILE)?.unwrap_or_else(|| self.source.join(CONFIG_FILE)))
    }

    fn config(&self) -> Result<Map<String, Value>, LmError> {
        Ok(json::read(&self.config_path()?)?)
    }

    fn parsed_config(&self) -> Result<crate::checkpoint::config::ModelConfig, LmError> {
        let path = self.config_path()?;
        parse_config(&path, &json::read_text(&path)?)
    }
}

fn write_json(path: &Path, fields: Map<String, Value>) -> Result<(), LmError> {
    let fail = |source| LmError::Json { path: path.to_owned(), field: ".".to_owned(), source };
    let text = serde_json::to_string_pretty(&Value::from(fields)).map_err(fail)? + "\n";
    std::fs::write(path, text).map_err(at(path))
}

/// Resolved path of a file of a model's folder, if it exists. It must lie in the folder or, in a snapshot of the hub's
/// cache, among the files of the same repository.
///
/// # Errors
///
/// [`LmError::Outside`] for a file that lies elsewhere or is not a regular file; [`LmError::File`] for a path that
/// cannot be resolved.
pub(crate) fn within(folder: &Path, name: &str) -> Result<Option<PathBuf>, LmError> {
    let path = folder.join(name);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let real = path.canonicalize().map_err(at(&path))?;
    let root = folder.canonicalize().map_err(at(folder))?;
    let is_cached = real.parent().is_some_and(|parent| Some(parent) == blobs(&root).as_deref());
    if (real.starts_with(&root) || is_cached) && real.is_file() {
        return Ok(Some(real));
    }
    Err(LmError::Outside { path, target: real, folder: root })
}

/// Folder of the files (`REPOSITORY/blobs`) of a repository in the hub's cache, if the given folder is one of its
/// snapshots (`REPOSITORY/snapshots/COMMIT`).
fn blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent().filter(|parent| parent.file_name() == Some(OsStr::new("snapshots")))?;
    Some(snapshots.parent()?.join("blobs"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_within_the_folder_or_the_blobs_of_its_repository() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        let snapshot = place.join("models--a--b/snapshots/0123");
        let blobs = place.join("models--a--b/blobs");
        for folder in [&snapshot, &blobs, &place.join("outside"), &snapshot.join("inner")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        for file in [
            blobs.join("one"),
            place.join("outside/secret"),
            snapshot.join("inner/own"),
            place.join("models--a--b/other"),
        ] {
            std::fs::write(file, "text").unwrap();
        }
        let links = [
            ("cached", "../../blobs/one", true),
            ("own", "inner/own", true),
            ("secret", "../../../outside/secret", false),
            ("beside", "../../other", false),
            ("folder", "inner", false),
        ];
        for (name, target, is_allowed) in links {
            symlink(target, snapshot.join(name)).unwrap();
            let found = within(&snapshot, name);
            assert_eq!(found.is_ok(), is_allowed, "{name}: {found:?}");
        }
        assert_eq!(within(&snapshot, "none").unwrap(), None);
        // A link of that name to another folder does not belong to the cache.
        std::fs::remove_dir_all(&blobs).unwrap();
        symlink(place.join("outside"), &blobs).unwrap();
        symlink("../../blobs/secret", snapshot.join("through")).unwrap();
        let error = within(&snapshot, "through").unwrap_err().to_string();
        let expected = format!(
            "{0}/through: leads to {1}/outside/secret, which is not copied into a model that may be published: expected a file \
             within {0}",
            snapshot.display(),
            place.display()
        );
        assert_eq!(error, expected);
        // The model's folder itself may be reached by a link.
        symlink(&snapshot, place.join("link")).unwrap();
        assert!(within(&place.join("link"), "own").unwrap().is_some());
    }
}
