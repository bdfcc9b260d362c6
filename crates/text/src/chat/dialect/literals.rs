//! Literals of Python's strings and numbers.

/// Length of a string literal; `None` if it does not end.
pub(super) fn text_length(source: &str) -> Option<usize> {
    let mut characters = source.char_indices();
    let (_, quote) = characters.next()?;
    while let Some((index, character)) = characters.next() {
        if character == '\\' {
            characters.next()?;
        } else if character == quote {
            return Some(index + 1);
        }
    }
    None
}

/// Length of a number literal.
pub(super) fn number_length(source: &str) -> usize {
    let bytes = source.as_bytes();
    if matches!(bytes.get(..2), Some([b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B'])) {
        return 2 + source[2..].find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(source.len() - 2);
    }
    let digits =
        |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    end
}

/// Translates the escapes of a string literal, if the engine's differ from Python's.
pub(super) fn python_text(literal: &str) -> Result<Option<String>, String> {
    if !literal.contains('\\') {
        return Ok(None);
    }
    let mut text = String::with_capacity(literal.len() + 8);
    let mut rest = literal;
    while let Some(index) = rest.find('\\') {
        text.push_str(&rest[..index]);
        rest = &rest[index + 1..];
        let escape = rest.chars().next().unwrap_or('\\');
        let mut length = escape.len_utf8();
        let code = |digits: &str, radix: u32| {
            let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
            let code = if is_number { u32::from_str_radix(digits, radix).ok() } else { None };
            code.and_then(char::from_u32).ok_or_else(|| format!("\\{escape}{digits} is not a character"))
        };
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let mut is_known = false;
        let character = match escape {
            _ if digits > 0 => {
                length += digits;
                Some(code(rest.get(1..=digits).unwrap_or_default(), 16)?)
            }
            'N' => return Err("\\N is not supported: write the character or its \\u".to_owned()),
            '0'..='7' => {
                length = rest.chars().take(3).take_while(|digit| digit.is_digit(8)).count();
                Some(code(&rest[..length], 8)?)
            }
            'a' => Some('\u{7}'),
            'v' => Some('\u{b}'),
            '\n' => None,
            '\\' | '\'' | '"' | 'b' | 'f' | 'n' | 'r' | 't' => {
                text.push('\\');
                is_known = true;
                Some(escape)
            }
            // Python keeps the backslash of an escape that it does not know.
            _ => {
                text.push_str("\\\\");
                is_known = true;
                Some(escape)
            }
        };
        match character {
            Some('\n') if !is_known => text.push_str("\\n"),
            Some('\r') if !is_known => text.push_str("\\r"),
            Some(quote @ ('\\' | '\'' | '"')) if !is_known => text.extend(['\\', quote]),
            Some(character) => text.push(character),
            None => {}
        }
        rest = &rest[length..];
    }
    text.push_str(rest);
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_python() {
        let literal = |source: &str| python_text(source).unwrap().unwrap();
        assert_eq!(literal(r"'\/\.\n\\n'"), r"'\\/\\.\n\\n'");
        assert_eq!(literal(r"'\x41\101\U0001F600\''"), "'AA\u{1f600}\\''");
        assert_eq!(literal(r"'\x27\x5c'"), r"'\'\\'");
        assert!(python_text(r"'\xzz'").is_err() && python_text(r"'\ud800'").is_err());
    }
}
