//! Tokens as text: all at once, one by one, and up to where a text has to stop.
//!
//! A model without a tokenizer speaks in token ids: its text is their numbers, those of an answer with a space before each.

use crate::data::prompt::Prompt;
use crate::error::LmError;
use crate::example::Encoder;
use crate::folder::Text;
use crate::tokens::Pieces;

/// What makes text of tokens and tokens of text.
pub(super) struct Wording {
    text: Text,
    /// Each token by itself.
    words: Vec<String>,
}

/// A text that grows by tokens.
pub(super) struct Growing<'a> {
    wording: &'a Wording,
    pieces: Option<Pieces<'a>>,
}

/// A text that stops before any of some texts.
pub(super) struct Stopping {
    stops: Vec<String>,
    /// The end of the text until now, with which one of them may begin.
    held: String,
}

/// Tokens of a prompt whose text the first tokens of the answer go on from.
const CONTEXT: usize = 8;

impl Wording {
    pub(super) fn new(text: Text, vocabulary: usize) -> Result<Self, LmError> {
        let word = |token: usize| match &text.tokenizer {
            Some(tokenizer) => tokenizer.word(token as u32),
            None => Ok(token.to_string()),
        };
        let words = (0..vocabulary).map(word).collect::<Result<_, _>>()?;
        Ok(Self { text, words })
    }

    /// The special token with this text, which no response has as text.
    pub(super) fn special_token(&self, text: &str) -> Option<u32> {
        self.text.tokenizer.as_ref().and_then(|tokenizer| tokenizer.special_token(text))
    }

    /// The tokens of a prompt. Of a long one this takes long enough that other requests are answered elsewhere meanwhile.
    pub(super) fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, LmError> {
        let Text { tokenizer, template, .. } = &self.text;
        let encoder =
            Encoder { tokenizer: tokenizer.as_ref(), template: template.as_ref(), vocabulary: self.words.len() };
        tokio::task::block_in_place(|| encoder.prompt(prompt))
    }

    /// A token by itself.
    pub(super) fn word(&self, token: u32) -> &str {
        self.words.get(token as usize).map_or("", String::as_str)
    }

    /// The text of tokens.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, LmError> {
        match &self.text.tokenizer {
            Some(tokenizer) => tokenizer.decode(tokens),
            None => Ok(tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        }
    }

    /// A text that goes on from a prompt.
    pub(super) fn grow(&self, prompt: &[u32]) -> Result<Growing<'_>, LmError> {
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
    /// What one more token adds: nothing, where the text is not whole characters.
    pub(super) fn push(&mut self, token: u32) -> Result<String, LmError> {
        match &mut self.pieces {
            Some(pieces) => pieces.push(token),
            None => Ok(format!(" {}", self.wording.word(token))),
        }
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> Result<String, LmError> {
        self.pieces.as_mut().map_or_else(|| Ok(String::new()), Pieces::rest)
    }
}

impl Stopping {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// What is certain of the text when it has grown by a piece, and whether it stops there.
    pub(super) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(end) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(end);
            return (std::mem::take(&mut self.held), true);
        }
        let may_begin = |begin: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*begin..]));
        let certain = self.held.char_indices().map(|(begin, _)| begin).find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back when nothing follows.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stopping = Stopping::new(stops.iter().map(ToString::to_string).collect());
        let mut told = Vec::new();
        for piece in pieces {
            let (certain, stops) = stopping.push(piece);
            told.push(certain);
            if stops {
                return (told, true);
            }
        }
        told.push(stopping.rest());
        (told, false)
    }

    #[test]
    fn a_text_stops_before_the_first_of_its_stops_however_it_is_cut() {
        assert_eq!(stopped(&["\n\n"], &["a\n", "\nb"]), (vec!["a".to_owned(), String::new()], true));
        assert_eq!(stopped(&["cd", "bc"], &["abcd"]), (vec!["a".to_owned()], true));
        assert_eq!(stopped(&["é!"], &["né", "e", "é", "!"]).0.concat(), "née");
    }

    #[test]
    fn what_only_begins_like_a_stop_is_told_when_it_is_certain() {
        let told = |pieces: &[&str]| stopped(&["END"], pieces).0;
        assert_eq!(told(&["xE", "N", "x"]), ["x", "", "ENx", ""]);
        assert_eq!(told(&["xEN"]), ["x", "EN"]);
        assert_eq!(told(&["EEN"]), ["E", "EN"]);
    }
}
