//! Bytes of single tokens, which may be incomplete characters.

use tokenizers::DecoderWrapper;

use super::Tokenizer;
use crate::error::TextError;

impl Tokenizer {
    /// The bytes of a token within a text. The bytes of consecutive tokens are the bytes of their text.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn bytes(&self, id: u32) -> Result<Vec<u8>, TextError> {
        if let Some(text) = self.added.get(&id) {
            return Ok(text.clone().into_bytes());
        }
        let name = self.tokenizer.id_to_token(id).unwrap_or_default();
        let named = match self.tokenizer.get_decoder() {
            Some(decoder) if has(decoder, |part| matches!(part, DecoderWrapper::ByteLevel(_))) => {
                name.chars().map(byte_of_level).collect()
            }
            Some(decoder) if has(decoder, |part| matches!(part, DecoderWrapper::ByteFallback(_))) => {
                fallback_byte(&name).map(|byte| vec![byte])
            }
            _ => None,
        };
        named.map_or_else(|| self.word(id).map(String::into_bytes), Ok)
    }
}

/// Whether a decoder is of a kind, or contains one of that kind.
fn has(decoder: &DecoderWrapper, is_kind: fn(&DecoderWrapper) -> bool) -> bool {
    match decoder {
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().any(|part| has(part, is_kind)),
        decoder => is_kind(decoder),
    }
}

/// The byte of a character of a byte-level vocabulary. Printable bytes are written as themselves, and the others, in
/// their order, as the characters from U+0100 on.
fn byte_of_level(character: char) -> Option<u8> {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => (0..=u8::MAX).filter(|byte| !is_printable(*byte)).nth(usize::try_from(code - 0x100).ok()?),
    }
}

/// The byte of a token whose name has the form `<0xE2>`.
fn fallback_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_byte_level_vocabularies_are_the_bytes_of_gpt_2() {
        // By bytes_to_unicode() of GPT-2: a space, a line feed, the last of the others, and a printable one.
        assert_eq!(['Ġ', 'Ċ', 'Ń', 'é', 'A'].map(byte_of_level), [b' ', b'\n', 0xad, 0xe9, b'A'].map(Some));
        assert_eq!([' ', '\u{ad}', 'ń', '日'].map(byte_of_level), [None; 4].map(|none: Option<u8>| none));
    }

    #[test]
    fn tokens_that_fall_back_to_bytes_are_named_by_two_digits() {
        assert_eq!(
            ["<0xE2>", "<0x0A>", "<0x0>", "<0xZZ>", "a"].map(fallback_byte),
            [Some(0xe2), Some(0x0a), None, None, None]
        );
    }
}
