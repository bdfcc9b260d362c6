//! Conversion between tokens and text, for whole texts and for single tokens.
//!
//! Without a tokenizer, the text of a token is its id; in an answer a space precedes each id.

use std::collections::HashMap;

use text::data::prompt::Prompt;
use text::error::TextError;
use text::example::Encoder;
use text::tokens::Pieces;

use super::refusal::Refusal;
use crate::checkpoint::folder::Text;

/// Converter between tokens and text.
pub(super) struct Wording {
    text: Text,
    /// Text of each single token.
    words: Vec<String>,
    /// Bytes of each token that is a part of a character, and so has no text of its own.
    parts: HashMap<u32, Vec<u8>>,
}

/// A text that grows token by token.
pub(super) struct Growing<'a> {
    wording: &'a Wording,
    pieces: Option<Pieces<'a>>,
}

/// Maximum mean number of bytes per token of a prompt. Ordinary text has about 4; the limit bounds the memory of
/// tokenization, which grows with the text.
const BYTES: usize = 32;
/// OpenAI's error code for a prompt that is too long.
pub(super) const TOO_LONG: &str = "context_length_exceeded";
/// Number of prompt tokens that are decoded together with the first tokens of the answer.
const CONTEXT: usize = 8;

impl Wording {
    pub(super) fn new(text: Text, vocabulary: usize) -> Result<Self, TextError> {
        let word = |token: usize| match &text.tokenizer {
            Some(tokenizer) => tokenizer.word(token as u32),
            None => Ok(token.to_string()),
        };
        let words = (0..vocabulary).map(word).collect::<Result<Vec<_>, _>>()?;
        let mut parts = HashMap::new();
        if let Some(tokenizer) = &text.tokenizer {
            for (token, word) in (0..).zip(&words) {
                let bytes = tokenizer.bytes(token)?;
                if bytes != word.as_bytes() {
                    parts.insert(token, bytes);
                }
            }
        }
        Ok(Self { text, words, parts })
    }

    /// The special token with this text, which never appears in a response's text.
    pub(super) fn special_token(&self, text: &str) -> Option<u32> {
        self.text.tokenizer.as_ref().and_then(|tokenizer| tokenizer.special_token(text))
    }

    /// Tokenizes a prompt, to at most `longest` tokens. A text too long for so few tokens is rejected before it is
    /// tokenized.
    pub(super) fn encode(&self, prompt: &Prompt, name: &str, longest: usize) -> Result<Vec<u32>, Refusal> {
        let Text { tokenizer, template, .. } = &self.text;
        let encoder =
            Encoder { tokenizer: tokenizer.as_ref(), template: template.as_ref(), vocabulary: self.words.len() };
        let refuse = |error| Refusal::of_text(&error, name);
        let bounded = |bytes: usize| {
            let most = longest.saturating_mul(BYTES);
            let allowed = format!("at most {most} bytes of text, as there is room for {longest} tokens");
            match bytes > most {
                true => Err(Refusal::field(name, allowed, bytes).with_code(TOO_LONG)),
                false => Ok(()),
            }
        };
        let encode = |text: &str| bounded(text.len()).and_then(|()| encoder.encoded(text).map_err(refuse));
        match prompt {
            Prompt::Ids(_) => encoder.prompt(prompt).map_err(refuse),
            Prompt::Text(text) => encode(text),
            Prompt::Conversation(turns) => {
                if turns.len() > longest {
                    return Err(
                        Refusal::field(name, format!("at most {longest} turns"), turns.len()).with_code(TOO_LONG)
                    );
                }
                bounded(turns.iter().map(|turn| turn.content.len()).sum())?;
                encode(&encoder.rendered(turns).map_err(refuse)?)
            }
        }
    }

    /// Text of a single token.
    pub(super) fn word(&self, token: u32) -> &str {
        self.words.get(token as usize).map_or("", String::as_str)
    }

    /// Bytes of a token.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.parts.get(&token).map_or_else(|| self.word(token).as_bytes(), Vec::as_slice)
    }

    /// Number of characters whose first byte belongs to the token.
    pub(super) fn characters(&self, token: u32) -> u32 {
        const CONTINUATION: u8 = 0b10;
        self.bytes(token).iter().filter(|byte| **byte >> 6 != CONTINUATION).count() as u32
    }

    /// Whether a token is omitted from the text of a response.
    pub(super) fn is_special(&self, token: u32) -> bool {
        self.special_token(self.word(token)) == Some(token)
    }

    /// Converts tokens to text.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        match &self.text.tokenizer {
            Some(tokenizer) => tokenizer.decode(tokens),
            None => Ok(tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        }
    }

    /// Begins a text that continues a prompt.
    pub(super) fn grow(&self, prompt: &[u32]) -> Result<Growing<'_>, TextError> {
        let mut pieces = self.text.tokenizer.as_ref().map(|tokenizer| tokenizer.pieces());
        if let Some(pieces) = &mut pieces {
            for token in &prompt[prompt.len().saturating_sub(CONTEXT)..] {
                _ = pieces.push(*token)?;
            }
            _ = pieces.rest()?;
        }
        Ok(Growing { wording: self, pieces })
    }
}

impl Growing<'_> {
    /// Returns the text that one more token adds; empty while a character is incomplete.
    pub(super) fn push(&mut self, token: u32) -> Result<String, TextError> {
        match &mut self.pieces {
            Some(pieces) => pieces.push(token),
            None => Ok(format!(" {}", self.wording.word(token))),
        }
    }

    /// Ends the text, and returns the part that was not returned before.
    pub(super) fn rest(&mut self) -> Result<String, TextError> {
        self.pieces.as_mut().map_or_else(|| Ok(String::new()), Pieces::rest)
    }
}
