//! Declared parameters: each is named, bounded, explained and defaulted in one place.

pub(crate) mod declaration;
pub(crate) mod error;
mod table;
pub(crate) mod value;

use std::ops::{Bound, RangeBounds};

pub(crate) use self::declaration::Parameter;
pub(crate) use self::error::ParameterError;
pub(crate) use self::table::choices;
pub use self::table::{Choice, Declared, Registered, check, declared, in_force, read};
#[doc(hidden)]
pub use self::table::{Field, Typed, build, purpose};
pub(crate) use self::value::{Parameters, Value};

/// Lower and upper bound of a number.
pub type Interval = (Bound<f64>, Bound<f64>);

/// Kind of a parameter's value, with its allowed values and default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A finite number in an interval.
    Number {
        /// Default value.
        default: f64,
        /// Allowed values.
        range: Interval,
    },
    /// A finite number in an interval. Unless it is set, it is derived from another parameter.
    Derived {
        /// Description of the derivation, for manuals.
        default: &'static str,
        /// Allowed values.
        range: Interval,
    },
    /// A whole number.
    Count {
        /// Default value.
        default: usize,
        /// Minimum of the allowed values.
        least: usize,
        /// Maximum of the allowed values.
        most: usize,
    },
    /// One of a list of names.
    Choice {
        /// Default value.
        default: &'static str,
        /// Allowed names.
        options: &'static [&'static str],
    },
    /// A switch that is on or off.
    Switch {
        /// Default value.
        default: bool,
    },
    /// Weighted methods.
    Terms {
        /// Names and weights of the default.
        default: &'static [(&'static str, f64)],
    },
}

/// Interval 10⁻⁹ ≤ x ≤ 10⁶: scales whose products and quotients with a permitted log-probability are finite.
pub const SCALE: Interval = (Bound::Included(1e-9), Bound::Included(1e6));
/// Interval 0 < x ≤ 10⁶.
pub const POSITIVE: Interval = (Bound::Excluded(0.0), Bound::Included(1e6));
/// Interval 0 ≤ x ≤ 10⁶.
pub const NON_NEGATIVE: Interval = (Bound::Included(0.0), Bound::Included(1e6));
/// Interval 0 ≤ x ≤ 1.
pub const UNIT: Interval = (Bound::Included(0.0), Bound::Included(1.0));
/// Interval 0 ≤ x < 1.
pub const BELOW_ONE: Interval = (Bound::Included(0.0), Bound::Excluded(1.0));

/// Interval low ≤ x ≤ high.
pub const fn interval(low: f64, high: f64) -> Interval {
    (Bound::Included(low), Bound::Included(high))
}

/// Returns `value` if it is finite and in the range.
///
/// # Errors
///
/// [`ParameterError::Invalid`] with the owner, the name, the range and the value.
///
/// # Examples
///
/// ```
/// use objective::parameter::{UNIT, check_number};
///
/// assert_eq!(check_number("example", "share", UNIT, 1.0)?, 1.0);
/// let error = check_number("example", "share", UNIT, f64::NAN).unwrap_err();
/// assert_eq!(error.to_string(), "example.share: expected a number, 0 <= share <= 1, got NaN");
/// Ok::<(), objective::ParameterError>(())
/// ```
pub fn check_number(
    owner: &'static str,
    name: &'static str,
    range: Interval,
    value: f64,
) -> Result<f64, ParameterError> {
    if value.is_finite() && range.contains(&value) {
        return Ok(value);
    }
    Err(ParameterError::Invalid {
        owner,
        name,
        allowed: allowed_numbers(name, range),
        given: Value::Number(value).to_string(),
    })
}

fn allowed_numbers(name: &str, (low, high): Interval) -> String {
    let low = match low {
        Bound::Included(low) => format!("{} <= ", Value::Number(low)),
        Bound::Excluded(low) => format!("{} < ", Value::Number(low)),
        Bound::Unbounded => String::new(),
    };
    let high = match high {
        Bound::Included(high) => format!(" <= {}", Value::Number(high)),
        Bound::Excluded(high) => format!(" < {}", Value::Number(high)),
        Bound::Unbounded => String::new(),
    };
    format!("a number, {low}{name}{high}")
}
