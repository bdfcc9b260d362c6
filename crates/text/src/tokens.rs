//! Conversion of text to tokens and back, as `tokenizer.json` and `tokenizer_config.json` of a Hugging Face folder
//! define it.
//!
//! A response is encoded apart from its prompt, so that no token crosses the boundary between them. Many tokenizers add
//! a space before a text, which would be wrong in the middle of a text: see [`Tokenizer::encode_on`].

mod bytes;
mod stranger;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::TextError;
use crate::json;
use stranger::{check_file, check_text, guarded};

/// Name of the file that contains the vocabulary and its rules.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the file that assigns roles to special tokens, and that contains the chat template of older folders.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// Settings in `tokenizer_config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerSettings {
    /// Special tokens by their roles, such as `eos_token`, under which a chat template reads them.
    pub special_tokens: Vec<(String, String)>,
    /// Source of the chat template.
    pub chat_template: Option<String>,
    /// Whether a sequence begins with `bos_token`, if `tokenizer_class` decides it instead of `tokenizer.json`.
    pub add_bos: Option<bool>,
}

/// Tokenizer of a model.
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    path: PathBuf,
    /// Tokens that begin every prompt: `bos_token`, or the tokens that the post-processor adds before a text.
    prefix: Vec<u32>,
    eos: u32,
    /// Texts of added tokens by their ids: markers of roles and of ends, which ordinary text does not contain.
    added: HashMap<u32, String>,
    /// Texts after which the tokenizer adds no space, with their tokens; empty if it never adds a space.
    guards: Vec<(&'static str, Vec<u32>)>,
}

/// Decoder of a response, one token at a time, without the text of special tokens.
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
    /// Tokens of an incomplete character.
    waiting: Vec<u32>,
}

impl Pieces<'_> {
    /// Adds a token, and returns the text that it completes, which is empty in the middle of a character.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.waiting.push(id);
        match guarded(&self.tokenizer.path, || self.stream.step(id))? {
            Some(text) => {
                self.waiting.clear();
                Ok(text)
            }
            None => Ok(String::new()),
        }
    }

    /// Returns the text of an incomplete character at the end of the response.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn rest(&mut self) -> Result<String, TextError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() { Ok(String::new()) } else { self.tokenizer.response(&waiting) }
    }
}

/// Reads `tokenizer_config.json` of a model's folder.
///
/// # Errors
///
/// [`TextError::File`], [`TextError::Json`], and [`TextError::Field`] for named chat templates none of which is
/// `default`.
pub fn read_settings(folder: &Path) -> Result<TokenizerSettings, TextError> {
    let path = folder.join(TOKENIZER_CONFIG_FILE);
    let text = json::read_text(&path)?;
    let raw: RawSettings =
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text)).map_err(|error| {
            TextError::Json { path: path.clone(), field: error.path().to_string(), source: error.into_inner() }
        })?;
    let chat_template = match raw.chat_template {
        None => None,
        Some(RawTemplate::One(template)) => Some(template),
        Some(RawTemplate::Named(named)) => {
            let names: Vec<_> = named.iter().map(|template| template.name.clone()).collect();
            match named.into_iter().find(|template| template.name == "default") {
                Some(template) => Some(template.template),
                None => {
                    return Err(TextError::Field {
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
    Ok(TokenizerSettings { special_tokens, chat_template, add_bos })
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
    /// [`TextError::Tokenizer`] for an invalid file, and [`TextError::Field`] for settings without `eos_token`, or with
    /// a token that the vocabulary does not contain.
    pub fn read(folder: &Path, settings: &TokenizerSettings) -> Result<Self, TextError> {
        let path = folder.join(TOKENIZER_FILE);
        json::refuse_pointer_at(&path)?;
        let text = std::fs::read(&path).map_err(|source| TextError::File { path: path.clone(), source })?;
        check_file(&path, &text)?;
        let mut tokenizer = guarded(&path, || tokenizers::Tokenizer::from_bytes(&text))?;
        // A file may have both settings from its last use, but here the caller determines lengths.
        tokenizer.with_padding(None);
        guarded(&path, || tokenizer.with_truncation(None).map(|_| ()))?;
        let added = tokenizer.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.content)).collect();
        let mut read = Self { tokenizer, path, prefix: Vec::new(), eos: 0, added, guards: Vec::new() };
        read.eos = read.special(folder, settings, "eos_token")?.ok_or_else(|| TextError::Field {
            path: folder.join(TOKENIZER_CONFIG_FILE),
            field: "eos_token".to_owned(),
            allowed: "a token that ends responses".to_owned(),
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

    /// The token that ends every response.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The token that begins a prompt, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.prefix.last().copied()
    }

    /// Encodes a text that begins a sequence. The tokens begin with exactly one `bos_token` if the model uses it, even
    /// if the text begins with it too, as a rendered conversation may.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let rest = self.encode_first(text)?;
        Ok(self.prefix.iter().copied().chain(rest).collect())
    }

    /// Encodes a text that begins a sequence, without the `bos_token`.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn encode_first(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = self.ids(text, false)?;
        let given = ids.iter().take_while(|id| Some(**id) == self.bos()).count();
        ids.drain(..given);
        Ok(ids)
    }

    /// Encodes a text that continues another text, without tokens before it and without an added space.
    ///
    /// A SentencePiece tokenizer adds a space before a text, so that its first word has the same token as within a
    /// sentence. This function encodes the continuation after a guard text whose tokens it cannot merge with, and
    /// removes the guard's tokens.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails, or merges the text with every guard.
    pub fn encode_on(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if self.guards.is_empty() || text.is_empty() {
            return self.ids(text, false);
        }
        for (guard, ids) in &self.guards {
            let guarded = self.ids(&format!("{guard}{text}"), false)?;
            if let Some(rest) = guarded.strip_prefix(ids.as_slice()) {
                return Ok(rest.to_vec());
            }
        }
        let problem = format!("merges {text:?} with the text before it");
        Err(TextError::Tokenizer { path: self.path.clone(), problem })
    }

    /// Decodes tokens to text, including special tokens.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        guarded(&self.path, || self.tokenizer.decode(ids, false))
    }

    /// Decodes the tokens of a response to text, without special tokens.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn response(&self, ids: &[u32]) -> Result<String, TextError> {
        guarded(&self.path, || self.tokenizer.decode(ids, true))
    }

    /// The id of the special token with this text, if there is one.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        let is_special = self.tokenizer.get_added_vocabulary().is_special_token(text);
        self.tokenizer.token_to_id(text).filter(|_| is_special)
    }

    /// The text of a token within a sentence, or its name in the vocabulary if it is a part of a character.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn word(&self, id: u32) -> Result<String, TextError> {
        let text = self.decode(&[id])?;
        let name = self.tokenizer.id_to_token(id).unwrap_or_default();
        // Decoded alone, a SentencePiece token loses its space.
        Ok(match name.starts_with('▁') && !text.starts_with(' ') {
            _ if text.contains('\u{fffd}') => name,
            true => format!(" {text}"),
            false => text,
        })
    }

    /// Creates a decoder of a response.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { tokenizer: self, stream: self.tokenizer.decode_stream(true), waiting: Vec::new() }
    }

    /// Whether the token marks a role or an end. `eos_token` does; an added token of spaces does not.
    pub fn is_marker(&self, id: u32) -> bool {
        id == self.eos || self.added.get(&id).is_some_and(|text| !text.trim().is_empty())
    }

    /// Whether the token's text consists of white space only.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn is_white_space(&self, id: u32) -> Result<bool, TextError> {
        // Decoded alone, a SentencePiece token may lose its space, and an incomplete character has no text.
        let text = self.decode(&[id])?;
        Ok(text.chars().all(char::is_whitespace))
    }

    fn ids(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>, TextError> {
        check_text(&self.path, text)?;
        let encoding = guarded(&self.path, || self.tokenizer.encode_fast(text, special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens that the post-processor of `tokenizer.json` adds before a text.
    fn post_processed_prefix(&self) -> Result<Vec<u32>, TextError> {
        let (plain, whole) = (self.ids("a", false)?, self.ids("a", true)?);
        let begin = whole.windows(plain.len().max(1)).position(|ids| ids == plain).unwrap_or(0);
        Ok(whole[..begin].to_vec())
    }

    fn special(&self, folder: &Path, settings: &TokenizerSettings, field: &str) -> Result<Option<u32>, TextError> {
        let Some((_, token)) = settings.special_tokens.iter().find(|(name, _)| name == field) else { return Ok(None) };
        match self.tokenizer.token_to_id(token) {
            Some(id) => Ok(Some(id)),
            None => Err(TextError::Field {
                path: folder.join(TOKENIZER_CONFIG_FILE),
                field: field.to_owned(),
                allowed: format!("a token of {TOKENIZER_FILE}"),
                given: token.clone(),
            }),
        }
    }

    fn guards(&self) -> Result<Vec<(&'static str, Vec<u32>)>, TextError> {
        // If the first token of a text without a space begins with a space, the tokenizer added it.
        let first = self.ids("a", false)?.first().and_then(|id| self.tokenizer.id_to_token(*id)).unwrap_or_default();
        if !first.starts_with(['▁', 'Ġ']) {
            return Ok(Vec::new());
        }
        ["\n", "\u{1}"].into_iter().map(|guard| Ok((guard, self.ids(guard, false)?))).collect()
    }
}
