//! Models of the hub. Only the files that are needed are downloaded, into the cache of Hugging Face's own programs.

use std::ffi::OsStr;
use std::path::PathBuf;

use hf_hub::HFClientSync;

use super::COPIED;
use crate::checkpoint::adapter;
use crate::checkpoint::config::CONFIG_FILE;
use crate::checkpoint::weights::{self, INDEX_FILE, WEIGHTS_FILE};
use crate::error::LmError;

/// Optional files of the top folder that are downloaded, besides those of [`COPIED`] and the shards that an index
/// names.
const LOADED: [&str; 5] = [CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, adapter::CONFIG_FILE, adapter::WEIGHTS_FILE];
/// Characters with a special meaning in file name patterns.
const GLOB: [char; 6] = ['*', '?', '[', '{', '\\', '!'];

/// Downloads the files of a model that the cache lacks, and returns its folder in the cache. Weights are one file, or
/// the shards that an index names.
///
/// # Errors
///
/// The hub's error, and [`LmError`] for a malformed index.
pub(super) fn fetch(
    owner: &str,
    model: &str,
    revision: Option<String>,
    refuse: impl Fn(String) -> LmError,
) -> Result<PathBuf, LmError> {
    let offline = std::env::var_os("HF_HUB_OFFLINE").is_some_and(|value| value != "0");
    let client = HFClientSync::new().map_err(|error| refuse(error.to_string()))?;
    let snapshot = |revision: Option<String>, names: Vec<String>| {
        client
            .model(owner, model)
            .snapshot_download()
            .allow_patterns(names)
            .maybe_revision(revision)
            .local_files_only(offline)
            .send()
            .map_err(|error| refuse(format!("there is no such folder, and the hub's error is: {error}")))
    };
    let folder = snapshot(revision, LOADED.into_iter().chain(COPIED).map(str::to_owned).collect())?;
    if offline || folder.join(WEIGHTS_FILE).exists() || !folder.join(INDEX_FILE).exists() {
        return Ok(folder);
    }
    let (files, _) = weights::files(&folder)?;
    let names = files.iter().filter_map(|file| file.file_name().and_then(OsStr::to_str));
    let names = names.filter(|name| !name.contains(GLOB)).map(str::to_owned).collect();
    // The folder is named after its commit, so that files of different commits are not mixed.
    let commit = folder.file_name().and_then(OsStr::to_str).map(str::to_owned);
    snapshot(commit, names)
}
