//! A model's folder as Hugging Face lays it out: read, found on the hub, and written.

mod hub;
mod inherited;

use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use program::NewFolder;
use tch::Tensor;
use text::chat::{ChatTemplate, Ending, Message, Role, read_chat_template};
use text::error::TextError;
use text::example::Encoder;
use text::tokens::{TOKENIZER_FILE, Tokenizer, read_settings};

use crate::checkpoint::config::{Dtype, ModelConfig, read_config};
use crate::checkpoint::generation_config::GenerationConfig;
use crate::checkpoint::weights::{self, SHARD_BYTES};
use crate::error::{LmError, refuse};
use crate::transformer::model::Shape;
use inherited::COPIED;
pub use inherited::Inherited;
pub(crate) use inherited::within;

/// Returns the folder of a model on this machine, or of a model of the hub by its id (`owner/name` or
/// `owner/name@revision`). Files of a model of the hub are downloaded into the cache that Hugging Face's own programs
/// use, unless they are there already.
///
/// # Errors
///
/// [`LmError::Model`] for a name that is neither, and for errors of the hub.
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
        return Err(refuse("expected an existing folder, or a model of the hub as owner/name".to_owned()));
    };
    hub::fetch(owner, model, revision, refuse)
}

/// Tokenizer, chat template and generation configuration of a model.
pub struct Text {
    /// Tokenizer; `None` if the folder has no `tokenizer.json`, in which case only token ids are accepted.
    pub tokenizer: Option<Tokenizer>,
    /// Chat template; `None` if the model has none.
    pub template: Option<ChatTemplate>,
    /// The contents of `generation_config.json`.
    pub generation: GenerationConfig,
}

/// Replacements for a folder's own chat template and `eos_token`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// File with the chat template.
    pub chat_template: Option<PathBuf>,
    /// Token that ends a response, instead of the tokenizer's `eos_token`.
    pub eos_token: Option<String>,
}

impl Text {
    /// Reads the files from a model's folder. `now` is the date for chat templates that render it.
    ///
    /// # Errors
    ///
    /// As [`GenerationConfig::of`], [`read_settings`], [`Tokenizer::read`] and [`read_chat_template`];
    /// [`LmError::Record`] for an `eos_token` that the tokenizer does not have.
    pub fn read(folder: &Path, replaced: &Replaced, now: DateTime) -> Result<Self, LmError> {
        const EOS_TOKEN: &str = "eos_token";
        let generation = GenerationConfig::of(folder)?;
        if !folder.join(TOKENIZER_FILE).exists() {
            return match &replaced.eos_token {
                Some(given) => Err(refuse(EOS_TOKEN, format!("nothing, as there is no {TOKENIZER_FILE}"), given)),
                None => Ok(Self { tokenizer: None, template: None, generation }),
            };
        }
        let mut settings = read_settings(folder)?;
        if let Some(token) = &replaced.eos_token {
            settings.special_tokens.retain(|(name, _)| name != EOS_TOKEN);
            settings.special_tokens.push((EOS_TOKEN.to_owned(), token.clone()));
        }
        let tokenizer = Tokenizer::read(folder, &settings).map_err(|error| match error {
            TextError::Field { field, allowed, given, .. } if replaced.eos_token.is_some() && field == EOS_TOKEN => {
                refuse(EOS_TOKEN, allowed, given)
            }
            error => error.into(),
        })?;
        let template = read_chat_template(replaced.chat_template.as_deref(), folder, &settings, now)?;
        Ok(Self { tokenizer: Some(tokenizer), template, generation })
    }

    /// Tokens that end a response: those that the model's files name, the tokenizer's `eos_token`, and the marker with
    /// which the chat template ends a turn.
    pub fn ends(&self, config: &ModelConfig) -> Vec<u32> {
        let named = self.generation.eos.as_ref().unwrap_or(&config.eos);
        let mut ends: Vec<u32> = Vec::new();
        for end in named.iter().copied().chain(self.own_ends()) {
            if (end as usize) < config.vocabulary && !ends.contains(&end) {
                ends.push(end);
            }
        }
        ends
    }

    /// Tokens that end a training example: the marker with which the chat template ends a turn, and the tokenizer's
    /// `eos_token`.
    pub fn own_ends(&self) -> Vec<u32> {
        let eos = self.tokenizer.as_ref().map(Tokenizer::eos);
        let turn = self.end_of_turn();
        turn.into_iter().chain(eos.filter(|eos| Some(*eos) != turn)).collect()
    }

    /// Marker that the chat template writes after an assistant's last turn. `None` if it writes none, so that
    /// `eos_token` ends the turn, or if it cannot render a plain conversation.
    fn end_of_turn(&self) -> Option<u32> {
        /// A character that no template contains.
        const PLACEHOLDER: &str = "\u{fdd1}";
        let (tokenizer, template) = (self.tokenizer.as_ref()?, self.template.as_ref()?);
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let turns = [turn(Role::System, "a"), turn(Role::User, "b"), turn(Role::Assistant, PLACEHOLDER)];
        // Some templates reject a system message, and some require one.
        let rendered =
            [&turns[1..], &turns[..]].into_iter().find_map(|turns| template.render(turns, Ending::Turn).ok())?;
        let (_, rest) = rendered.rsplit_once(PLACEHOLDER)?;
        tokenizer.encode_on(rest).ok()?.into_iter().find(|id| tokenizer.is_marker(*id))
    }

    /// Returns the encoder of data for a model of this shape.
    pub fn encoder(&self, config: &ModelConfig) -> Encoder<'_> {
        let Self { tokenizer, template, .. } = self;
        Encoder { tokenizer: tokenizer.as_ref(), template: template.as_ref(), vocabulary: config.vocabulary }
    }
}

/// Type in which a model's weights are stored according to its configuration; 32 bits if it does not say.
///
/// # Errors
///
/// As [`read_config`].
pub fn stored_dtype(folder: &Path) -> Result<Dtype, LmError> {
    Ok(read_config(folder)?.dtype.unwrap_or(Dtype::Float32))
}

/// Writes a model as a new folder `target`, with the configuration and the tokenizer of `source`. The folder appears
/// once it is complete.
///
/// # Errors
///
/// [`LmError::Taken`] if `target` exists already, [`LmError::File`] if it cannot be written, [`LmError::Outside`] for a
/// file of `source` that lies outside of it, and [`LmError::Weight`] for numbers that are not finite in `dtype`.
pub fn write(target: &Path, source: &Path, parameters: &[(Shape, &Tensor)], dtype: Dtype) -> Result<(), LmError> {
    whole(target, Appearing::New, |folder| fill(folder, &Inherited::new(source), parameters, dtype))
}

/// Condition on an existing folder when a new one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appearing {
    /// Accept an absent or an empty folder.
    New,
    /// Replace a folder of an earlier run.
    Instead,
}

/// Makes the folder `target`, which appears once `fill` has written all its files. Whether it may appear is checked
/// first.
///
/// # Errors
///
/// [`LmError::Taken`] if a folder is there that must not be replaced, [`LmError::File`] if it cannot be written, and
/// the errors of `fill`.
pub(crate) fn whole(
    target: &Path,
    appearing: Appearing,
    fill: impl FnOnce(&Path) -> Result<(), LmError>,
) -> Result<(), LmError> {
    if appearing == Appearing::New {
        refuse_taken(target)?;
    }
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(at(parent))?;
    }
    let new = NewFolder::create(target)?;
    fill(new.path())?;
    match appearing {
        Appearing::New => new.appear()?,
        Appearing::Instead => new.replace()?,
    }
    Ok(())
}

/// Rejects a target that exists already.
fn refuse_taken(target: &Path) -> Result<(), LmError> {
    let is_empty = || std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if target.symlink_metadata().is_err() || (!target.is_symlink() && is_empty()) {
        return Ok(());
    }
    let problem = "it exists already: remove it, or name a new folder";
    Err(LmError::Taken { path: target.to_owned(), problem })
}

/// Writes the files of a model's folder.
pub(crate) fn fill(
    folder: &Path,
    inherited: &Inherited<'_>,
    parameters: &[(Shape, &Tensor)],
    dtype: Dtype,
) -> Result<(), LmError> {
    // Rejects files that must not be copied before gigabytes are written.
    inherited.write(folder, parameters, dtype)?;
    weights::write(folder, parameters, dtype, SHARD_BYTES)
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> LmError + use<> {
    let path = path.to_owned();
    move |source| LmError::File { path: path.clone(), source }
}
