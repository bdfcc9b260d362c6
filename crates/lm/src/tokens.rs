//! Text to tokens, as `tokenizer.json` and `tokenizer_config.json` of a Hugging Face folder say.
//!
//! A response is encoded apart from its prompt, so that no token is made of both and the boundary between them is where the data
//! put it. Many tokenizers write a space before a text, which is wrong in the middle of one: see [`Tokenizer::encode_on`].

mod bytes;
mod stranger;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::LmError;
use crate::json;
use stranger::{check_file, check_text, guarded};

/// The vocabulary and how to use it.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Which of its tokens mean what, and the chat template of older folders.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// What `tokenizer_config.json` says that we need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Special tokens by their role, as `eos_token`; a chat template sees them under these names.
    pub special_tokens: Vec<(String, String)>,
    /// The chat template.
    pub chat_template: Option<String>,
    /// Whether a sequence begins with `bos_token`, where `tokenizer_class` decides it and not `tokenizer.json`.
    pub add_bos: Option<bool>,
}

/// Text to tokens and back.
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    path: PathBuf,
    /// What every prompt begins with, once: `bos_token`, or whatever the post-processor writes before a text.
    prefix: Vec<u32>,
    eos: u32,
    /// The text of added tokens by their ids: markers of roles and ends, in no text that people write.
    added: HashMap<u32, String>,
    /// Texts that keep a text behind them from getting a space; empty where none gets one.
    guards: Vec<(&'static str, Vec<u32>)>,
}

/// A response that grows token by token: special tokens are no part of its text.
pub struct Pieces<'a> {
    tokenizer: &'a Tokenizer,
    stream: tokenizers::DecodeStream<
        'a,
        tokenizers::ModelWrapper,
        tokenizers::NormalizerWrapper,
        tokenizers::PreTokenizerWrapper,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >,
    /// Tokens whose text is not there yet.
    waiting: Vec<u32>,
}

impl Pieces<'_> {
    /// The text that a token adds; none while it is not whole characters.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<String, LmError> {
        self.waiting.push(id);
        match guarded(&self.tokenizer.path, || self.stream.step(id))? {
            Some(text) => {
                self.waiting.clear();
                Ok(text)
            }
            None => Ok(String::new()),
        }
    }

    /// What is there of characters that no token completed, when none follows.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn rest(&mut self) -> Result<String, LmError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() { Ok(String::new()) } else { self.tokenizer.response(&waiting) }
    }
}

/// Reads `tokenizer_config.json` of a model's folder.
///
/// # Errors
///
/// [`LmError::File`], [`LmError::Json`], and [`LmError::Field`] for chat templates by names of which none is `default`.
pub fn read_settings(folder: &Path) -> Result<Settings, LmError> {
    let path = folder.join(TOKENIZER_CONFIG_FILE);
    let text = json::read_text(&path)?;
    let raw: RawSettings =
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text)).map_err(|error| {
            LmError::Json { path: path.clone(), field: error.path().to_string(), source: error.into_inner() }
        })?;
    let chat_template = match raw.chat_template {
        None => None,
        Some(RawTemplate::One(template)) => Some(template),
        Some(RawTemplate::Named(named)) => {
            let names: Vec<_> = named.iter().map(|template| template.name.clone()).collect();
            match named.into_iter().find(|template| template.name == "default") {
                Some(template) => Some(template.template),
                None => {
                    return Err(LmError::Field {
                        path,
                        field: "chat_template".to_owned(),
                        allowed: "one named default".to_owned(),
                        given: names.join(", "),
                    });
                }
            }
        }
    };
    let tokens = [
        ("bos_token", raw.bos_token),
        ("eos_token", raw.eos_token),
        ("unk_token", raw.unk_token),
        ("sep_token", raw.sep_token),
        ("pad_token", raw.pad_token),
        ("cls_token", raw.cls_token),
        ("mask_token", raw.mask_token),
    ];
    let special_tokens = tokens
        .into_iter()
        .filter_map(|(name, token)| {
            let (RawToken::Text(text) | RawToken::Added { content: text }) = token?;
            Some((name.to_owned(), text))
        })
        .collect();
    // transformers reads no `add_bos_token` beside a tokenizer.json. Two of its classes replace the post-processor.
    let add_bos = match raw.tokenizer_class.as_deref() {
        Some("GPTNeoXTokenizer" | "GPTNeoXTokenizerFast") => Some(false),
        Some("CodeLlamaTokenizer" | "CodeLlamaTokenizerFast") => Some(true),
        _ => None,
    };
    Ok(Settings { special_tokens, chat_template, add_bos })
}

#[derive(Deserialize)]
struct RawSettings {
    bos_token: Option<RawToken>,
    eos_token: Option<RawToken>,
    unk_token: Option<RawToken>,
    sep_token: Option<RawToken>,
    pad_token: Option<RawToken>,
    cls_token: Option<RawToken>,
    mask_token: Option<RawToken>,
    chat_template: Option<RawTemplate>,
    tokenizer_class: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawToken {
    Text(String),
    Added { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model's folder.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] for a file that is none, and [`LmError::Field`] for settings without `eos_token`, or with a token
    /// that the vocabulary does not have.
    pub fn read(folder: &Path, settings: &Settings) -> Result<Self, LmError> {
        let path = folder.join(TOKENIZER_FILE);
        json::refuse_pointer_at(&path)?;
        let text = std::fs::read(&path).map_err(|source| LmError::File { path: path.clone(), source })?;
        check_file(&path, &text)?;
        let mut tokenizer = guarded(&path, || tokenizers::Tokenizer::from_bytes(&text))?;
        // A file may ask for both, as whoever saved it last did. Lengths are ours to decide.
        tokenizer.with_padding(None);
        guarded(&path, || tokenizer.with_truncation(None).map(|_| ()))?;
        let added = tokenizer.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.content)).collect();
        let mut read = Self { tokenizer, path, prefix: Vec::new(), eos: 0, added, guards: Vec::new() };
        read.eos = read.special(folder, settings, "eos_token")?.ok_or_else(|| LmError::Field {
            path: folder.join(TOKENIZER_CONFIG_FILE),
            field: "eos_token".to_owned(),
            allowed: "a token, with which responses end".to_owned(),
            given: "nothing".to_owned(),
        })?;
        let bos = read.special(folder, settings, "bos_token")?;
        read.prefix = match settings.add_bos {
            Some(begins) => bos.into_iter().filter(|_| begins).collect(),
            None => read.post_processed_prefix()?,
        };
        read.guards = read.guards()?;
        Ok(read)
    }

    /// Whether another tokenizer has the same tokens under the same ids.
    pub fn has_vocabulary_of(&self, other: &Self) -> bool {
        self.tokenizer.get_vocab(true) == other.tokenizer.get_vocab(true)
    }

    /// The token that every response ends with.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The token that a prompt's text is behind, where the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.prefix.last().copied()
    }

    /// The tokens of a text that begins a sequence: exactly one `bos_token` where the model wants it, whether or not the text (a
    /// rendered conversation, say) begins with it.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let rest = self.encode_first(text)?;
        Ok(self.prefix.iter().copied().chain(rest).collect())
    }

    /// The same without the `bos_token`.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn encode_first(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let mut ids = self.ids(text, false)?;
        let given = ids.iter().take_while(|id| Some(**id) == self.bos()).count();
        ids.drain(..given);
        Ok(ids)
    }

    /// The tokens of a text that goes on from another: none of their own before it, and no space that it does not have.
    ///
    /// A tokenizer of SentencePiece's kind writes a space before a text, so that the first word is the token that it is within a
    /// sentence. What goes on from a prompt is encoded behind a text that it cannot merge with, whose tokens are then cut.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails, or merges the text with whatever it is behind.
    pub fn encode_on(&self, text: &str) -> Result<Vec<u32>, LmError> {
        if self.guards.is_empty() || text.is_empty() {
            return self.ids(text, false);
        }
        for (guard, ids) in &self.guards {
            let guarded = self.ids(&format!("{guard}{text}"), false)?;
            if let Some(rest) = guarded.strip_prefix(ids.as_slice()) {
                return Ok(rest.to_vec());
            }
        }
        let problem = format!("merges {text:?} with what stands before it");
        Err(LmError::Tokenizer { path: self.path.clone(), problem })
    }

    /// The text of tokens, special ones included.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        guarded(&self.path, || self.tokenizer.decode(ids, false))
    }

    /// The text of a response: the same without special tokens, as they are nothing that is said.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn response(&self, ids: &[u32]) -> Result<String, LmError> {
        guarded(&self.path, || self.tokenizer.decode(ids, true))
    }

    /// The special token with this text, if there is one.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        let is_special = self.tokenizer.get_added_vocabulary().is_special_token(text);
        self.tokenizer.token_to_id(text).filter(|_| is_special)
    }

    /// The text of a token within a text, or its name in the vocabulary where it is a part of a character.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn word(&self, id: u32) -> Result<String, LmError> {
        let text = self.decode(&[id])?;
        let name = self.tokenizer.id_to_token(id).unwrap_or_default();
        // Alone, a token of SentencePiece's kind loses its space.
        Ok(match name.starts_with('▁') && !text.starts_with(' ') {
            _ if text.contains('\u{fffd}') => name,
            true => format!(" {text}"),
            false => text,
        })
    }

    /// A response that grows token by token.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { tokenizer: self, stream: self.tokenizer.decode_stream(true), waiting: Vec::new() }
    }

    /// Whether the token marks a role or an end. `eos_token` is one; a run of spaces that some vocabularies add is none.
    pub fn is_marker(&self, id: u32) -> bool {
        id == self.eos || self.added.get(&id).is_some_and(|text| !text.trim().is_empty())
    }

    /// Whether the token is white space and nothing else.
    ///
    /// # Errors
    ///
    /// [`LmError::Tokenizer`] where the tokenizer fails.
    pub fn is_white_space(&self, id: u32) -> Result<bool, LmError> {
        // Alone, a token of SentencePiece's kind may lose its space, and a part of a character has none to lose.
        let text = self.decode(&[id])?;
        Ok(text.chars().all(char::is_whitespace))
    }

    fn ids(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>, LmError> {
        check_text(&self.path, text)?;
        let encoding = guarded(&self.path, || self.tokenizer.encode_fast(text, special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What the post-processor of `tokenizer.json` writes before a text.
    fn post_processed_prefix(&self) -> Result<Vec<u32>, LmError> {
        let (plain, whole) = (self.ids("a", false)?, self.ids("a", true)?);
        let begin = whole.windows(plain.len().max(1)).position(|ids| ids == plain).unwrap_or(0);
        Ok(whole[..begin].to_vec())
    }

    fn special(&self, folder: &Path, settings: &Settings, field: &str) -> Result<Option<u32>, LmError> {
        let Some((_, token)) = settings.special_tokens.iter().find(|(name, _)| name == field) else { return Ok(None) };
        match self.tokenizer.token_to_id(token) {
            Some(id) => Ok(Some(id)),
            None => Err(LmError::Field {
                path: folder.join(TOKENIZER_CONFIG_FILE),
                field: field.to_owned(),
                allowed: format!("a token of {TOKENIZER_FILE}"),
                given: token.clone(),
            }),
        }
    }

    fn guards(&self) -> Result<Vec<(&'static str, Vec<u32>)>, LmError> {
        // A text without a space whose first token has one got it from the tokenizer.
        let first = self.ids("a", false)?.first().and_then(|id| self.tokenizer.id_to_token(*id)).unwrap_or_default();
        if !first.starts_with(['▁', 'Ġ']) {
            return Ok(Vec::new());
        }
        ["\n", "\u{1}"].into_iter().map(|guard| Ok((guard, self.ids(guard, false)?))).collect()
    }
}
