//! A model's folder as Hugging Face lays it out: read, found on the hub, and written.

use std::path::{Path, PathBuf};

use hf_hub::HFClientSync;
use jiff::civil::DateTime;
use program::NewFolder;
use serde_json::Value;
use tch::Tensor;

use crate::chat::{CHAT_TEMPLATE_FILE, ChatTemplate, read_chat_template};
use crate::config::{CONFIG_FILE, Dtype, ModelConfig, read_config};
use crate::error::LmError;
use crate::example::Encoder;
use crate::model::Shape;
use crate::tokens::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, Tokenizer, read_settings};
use crate::weights::{self, SHARD_BYTES};

/// What is fetched from the hub: nothing but what we read, and what others read beside it.
const FETCHED: [&str; 4] = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"];

/// Files that go over to a trained model as they are, where the model has them.
const KEPT: [&str; 9] = [
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    CHAT_TEMPLATE_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// The folder of a model: one on this machine, or a model of the hub by its id (`owner/name`, or `owner/name@revision`), which is
/// fetched into the cache that Hugging Face's own programs use, and only what is not there yet.
///
/// # Errors
///
/// [`LmError::Model`] for a name that is neither, and for what the hub answers.
pub fn find(name: &str) -> Result<PathBuf, LmError> {
    let path = PathBuf::from(name);
    if path.is_dir() {
        return Ok(path);
    }
    let refuse = |problem: String| LmError::Model { name: name.to_owned(), problem };
    let (id, revision) = match name.split_once('@') {
        Some((id, revision)) => (id, Some(revision.to_owned())),
        None => (name, None),
    };
    let is_word = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    let Some((owner, model)) = id.split_once('/').filter(|(owner, model)| is_word(owner) && is_word(model)) else {
        return Err(refuse("expected a folder that exists, or a model of the hub as owner/name".to_owned()));
    };
    let offline = std::env::var_os("HF_HUB_OFFLINE").is_some_and(|value| value != "0");
    let client = HFClientSync::new().map_err(|error| refuse(error.to_string()))?;
    client
        .model(owner, model)
        .snapshot_download()
        .allow_patterns(FETCHED.map(str::to_owned).to_vec())
        .maybe_revision(revision)
        .local_files_only(offline)
        .send()
        .map_err(|error| refuse(format!("there is no such folder, and the hub answers: {error}")))
}

/// What makes text of a model's tokens and tokens of its text.
pub struct Text {
    /// None where the folder has no `tokenizer.json`: then only token ids are read.
    pub tokenizer: Option<Tokenizer>,
    /// None where the model has none.
    pub template: Option<ChatTemplate>,
}

impl Text {
    /// Reads it from a model's folder, with the chat template in the file `template` in place of the folder's. `now` is what a chat
    /// template that asks for the date is told.
    ///
    /// # Errors
    ///
    /// As [`read_settings`], [`Tokenizer::read`] and [`read_chat_template`].
    pub fn read(folder: &Path, template: Option<&Path>, now: DateTime) -> Result<Self, LmError> {
        if !folder.join(TOKENIZER_FILE).exists() {
            return Ok(Self { tokenizer: None, template: None });
        }
        let settings = read_settings(folder)?;
        let tokenizer = Tokenizer::read(folder, &settings)?;
        Ok(Self { tokenizer: Some(tokenizer), template: read_chat_template(template, folder, &settings, now)? })
    }

    /// What encodes data for a model of this shape.
    pub fn encoder(&self, config: &ModelConfig) -> Encoder<'_> {
        let Self { tokenizer, template } = self;
        Encoder { tokenizer: tokenizer.as_ref(), template: template.as_ref(), vocabulary: config.vocabulary }
    }
}

/// What a model's weights are stored as, where its configuration says so; else 32 bits.
///
/// # Errors
///
/// As [`read_config`].
pub fn stored_dtype(folder: &Path) -> Result<Dtype, LmError> {
    Ok(read_config(folder)?.dtype.unwrap_or(Dtype::Float32))
}

/// Writes a model as a new folder `target`, with the configuration and the tokenizer of `source`. The folder appears whole.
///
/// # Errors
///
/// [`LmError::File`] where something is written there already, or cannot be.
pub fn write(target: &Path, source: &Path, parameters: &[(Shape, &Tensor)], dtype: Dtype) -> Result<(), LmError> {
    whole(target, Appearing::New, |folder| fill(folder, source, None, parameters, dtype))
}

/// What may be where a new folder appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appearing {
    /// Nothing.
    New,
    /// A folder of an earlier time, whose place it takes.
    Instead,
}

/// Makes a folder `target`, which appears when `fill` has written all that is to be in it.
///
/// # Errors
///
/// [`LmError::File`] where something is there that must not be, or cannot be written, and those of `fill`.
pub(crate) fn whole(
    target: &Path,
    appearing: Appearing,
    fill: impl FnOnce(&Path) -> Result<(), LmError>,
) -> Result<(), LmError> {
    let new = NewFolder::create(target)?;
    fill(new.path())?;
    match appearing {
        Appearing::New => new.appear()?,
        Appearing::Instead => new.replace()?,
    }
    Ok(())
}

/// Writes what a model's folder holds, with the chat template in the file `template` in place of the source's.
pub(crate) fn fill(
    folder: &Path,
    source: &Path,
    template: Option<&Path>,
    parameters: &[(Shape, &Tensor)],
    dtype: Dtype,
) -> Result<(), LmError> {
    weights::write(folder, parameters, dtype, SHARD_BYTES)?;
    let config = source.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&config).map_err(at(&config))?;
    let fail = |source| LmError::Json { path: config.clone(), field: ".".to_owned(), source };
    let mut fields: Value = serde_json::from_str(&text).map_err(fail)?;
    if let Some(fields) = fields.as_object_mut() {
        // Whoever loads the model takes its numbers for what the configuration says that they are.
        let name = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        fields.insert(name.to_owned(), dtype.to_string().into());
    }
    let text = serde_json::to_string_pretty(&fields).map_err(fail)? + "\n";
    let written = folder.join(CONFIG_FILE);
    std::fs::write(&written, text).map_err(at(&written))?;
    for name in KEPT {
        let from = source.join(name);
        if from.exists() {
            std::fs::copy(&from, folder.join(name)).map_err(at(&from))?;
        }
    }
    if let Some(from) = template {
        std::fs::copy(from, folder.join(CHAT_TEMPLATE_FILE)).map_err(at(from))?;
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> LmError + use<> {
    let path = path.to_owned();
    move |source| LmError::File { path: path.clone(), source }
}
