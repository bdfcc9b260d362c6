//! Printed numbers, in which a zero has no minus.

/// A number with this many decimals.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|digit| "0.".contains(digit)) => digits.to_owned(),
        _ => text,
    }
}

/// A number with its sign and this many decimals; a number that rounds to zero has a plus.
pub(crate) fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_rounds_to_zero_has_no_minus() {
        for (value, plain, with_sign) in [
            (-1e-17, "0.0000", "+0.0000"),
            (-0.0, "0.0000", "+0.0000"),
            (-0.000_06, "-0.0001", "-0.0001"),
            (0.002_8, "0.0028", "+0.0028"),
        ] {
            assert_eq!((fixed(value, 4), signed(value, 4)), (plain.to_owned(), with_sign.to_owned()));
        }
        assert_eq!(fixed(-0.4, 0), "0");
    }
}
