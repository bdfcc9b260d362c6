//! Declared parameters: each is named, bounded, explained and defaulted in one place.

mod table;
mod value;

use std::ops::{Bound, RangeBounds};

pub(crate) use self::table::choices;
pub use self::table::{Choice, Declared, Registered, check, declared, in_force, read};
#[doc(hidden)]
pub use self::table::{Field, Typed, build, purpose};
pub use self::value::{Parameters, Value};

/// A declared parameter: the only place of its name, default, range and purpose.
///
/// ```
/// use objective::parameter::{Kind, POSITIVE, Parameter};
///
/// const TEMPERATURE: Parameter = Parameter {
///     name: "temperature",
///     kind: Kind::Number { default: 1.0, range: POSITIVE },
///     purpose: "what logits are divided by",
/// };
/// assert_eq!(TEMPERATURE.allowed(), "a number, 0 < temperature <= 1e6");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Name in recipes and on the command line.
    pub name: &'static str,
    /// Kind, allowed values and default.
    pub kind: Kind,
    /// One sentence for manuals.
    pub purpose: &'static str,
}

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
    /// A finite number in an interval that is derived from another parameter until it is set.
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
    /// On or off.
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

/// Reason why a parameter is rejected.
///
/// ```
/// let refusal = |method: &str, name: &str, value: f64| {
///     objective::registry::build(method, &[(name.to_owned(), value.into())].into()).unwrap_err().to_string()
/// };
/// assert_eq!(refusal("orpo", "beat", 0.5), "orpo.beat: unknown parameter; allowed: beta");
/// assert_eq!(refusal("orpo", "beta", 1e7), "orpo.beta: expected a number, 0 <= beta <= 1e6, got 1e7");
/// assert_eq!(
///     refusal("dpo", "divergence_alpha", 0.3),
///     "dpo.divergence_alpha: not used where divergence = reverse_kl, so it must not be set (got 0.3)"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// An unknown parameter.
    #[error("{owner}.{name}: unknown parameter; allowed: {allowed}")]
    Unknown {
        /// Name of the method or optimizer.
        owner: &'static str,
        /// Given name.
        name: String,
        /// Names of all parameters.
        allowed: String,
    },
    /// A value outside of its range or of the wrong kind.
    #[error("{owner}.{name}: expected {allowed}, got {given}")]
    Invalid {
        /// Name of the method or optimizer.
        owner: &'static str,
        /// Name of the parameter.
        name: &'static str,
        /// Description of the allowed values.
        allowed: String,
        /// Given value.
        given: String,
    },
    /// A parameter without effect under the other values.
    #[error("{owner}.{name}: not used where {because}, so it must not be set (got {given})")]
    Unused {
        /// Name of the method or optimizer.
        owner: &'static str,
        /// Name of the parameter.
        name: &'static str,
        /// Setting that makes it ineffective.
        because: String,
        /// Given value.
        given: String,
    },
}

impl Parameter {
    /// Returns `value` if it is in the parameter's range.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] with the owner, the range and the value.
    pub fn check(&self, owner: &'static str, value: f64) -> Result<f64, ParameterError> {
        match self.kind {
            Kind::Number { range, .. } | Kind::Derived { range, .. } => check_number(owner, self.name, range, value),
            _ => Err(self.invalid(owner, &Value::Number(value))),
        }
    }

    /// Description of the allowed values.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Number { range, .. } | Kind::Derived { range, .. } => allowed_numbers(self.name, range),
            Kind::Choice { options, .. } => format!("one of {}", options.join(", ")),
            Kind::Count { least, most, .. } => format!("a whole number, {least} <= {} <= {most}", self.name),
            Kind::Switch { .. } => "true or false".to_owned(),
            Kind::Terms { .. } => "a list of methods by name, each with its parameters and a weight".to_owned(),
        }
    }

    /// Default value, or the description of its derivation from another parameter.
    pub fn default(&self) -> Value {
        match self.kind {
            Kind::Number { default, .. } => Value::Number(default),
            Kind::Count { default, .. } => Value::Number(default as f64),
            Kind::Choice { default, .. } | Kind::Derived { default, .. } => Value::Text(default.to_owned()),
            Kind::Switch { default } => Value::Switch(default),
            Kind::Terms { default } => {
                let term = |&(name, weight): &(&str, f64)| {
                    [("name".to_owned(), Value::from(name)), ("weight".to_owned(), Value::Number(weight))].into()
                };
                Value::Terms(default.iter().map(term).collect())
            }
        }
    }

    pub(crate) fn invalid(&self, owner: &'static str, given: &Value) -> ParameterError {
        ParameterError::Invalid { owner, name: self.name, allowed: self.allowed(), given: given.to_string() }
    }
}
