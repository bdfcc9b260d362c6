//! Remainder `a % b` of numbers as in Python: it has the sign of b.

use minijinja::{Error, Value};

use super::arguments::{fail, integer, number};

/// Name of the function that a template's `%` is translated to.
pub(super) const REMAINDER: &str = "__remainder";

/// Computes the remainder of a floored division.
///
/// # Errors
///
/// An error for a value that is not a number, and for division by 0.
pub(super) fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    let zero = || fail("% by zero");
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        if right == 0 {
            return Err(zero());
        }
        // Minus one divides everything, and its quotient may overflow.
        let rest = left.checked_rem(right).unwrap_or(0);
        let rest = if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest };
        return Ok(i64::try_from(rest).map_or_else(|_| Value::from(rest), Value::from));
    }
    match (number(left), number(right)) {
        (Some(_), Some(0.0)) => Err(zero()),
        (Some(left), Some(right)) => {
            let rest = left % right;
            Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest }))
        }
        _ => {
            Err(fail(format!("%: expected two numbers or a text to format, got {} and {}", left.kind(), right.kind())))
        }
    }
}
