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
    /// The name in recipes and on the command line.
    pub name: &'static str,
    /// Kind of value, what is allowed, and the default.
    pub kind: Kind,
    /// One sentence for manuals.
    pub purpose: &'static str,
}

/// The lower and the upper bound of a number.
pub type Interval = (Bound<f64>, Bound<f64>);

/// Kind of a parameter's value, what is allowed, and the default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A finite number in an interval.
    Number {
        /// Used where none is given.
        default: f64,
        /// Allowed values.
        range: Interval,
    },
    /// A finite number in an interval that follows another parameter until it is set.
    Derived {
        /// How it follows, for manuals.
        default: &'static str,
        /// Allowed values.
        range: Interval,
    },
    /// A whole number.
    Count {
        /// Used where none is given.
        default: usize,
        /// The least allowed.
        least: usize,
        /// The greatest allowed.
        most: usize,
    },
    /// One of a list of names.
    Choice {
        /// Used where none is given.
        default: &'static str,
        /// Allowed names.
        options: &'static [&'static str],
    },
    /// On or off.
    Switch {
        /// Used where none is given.
        default: bool,
    },
    /// Weighted methods.
    Terms {
        /// Names and weights used where none are given.
        default: &'static [(&'static str, f64)],
    },
}

/// 10⁻⁹ ≤ x ≤ 10⁶: a scale whose products and quotients with a permitted log-probability are finite.
pub const SCALE: Interval = (Bound::Included(1e-9), Bound::Included(1e6));
/// 0 < x ≤ 10⁶.
pub const POSITIVE: Interval = (Bound::Excluded(0.0), Bound::Included(1e6));
/// 0 ≤ x ≤ 10⁶.
pub const NON_NEGATIVE: Interval = (Bound::Included(0.0), Bound::Included(1e6));
/// 0 ≤ x ≤ 1.
pub const UNIT: Interval = (Bound::Included(0.0), Bound::Included(1.0));
/// 0 ≤ x < 1.
pub const BELOW_ONE: Interval = (Bound::Included(0.0), Bound::Excluded(1.0));

/// low ≤ x ≤ high.
pub const fn interval(low: f64, high: f64) -> Interval {
    (Bound::Included(low), Bound::Included(high))
}

/// `value`, if it is finite and in the range.
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

/// Why a set of parameters was refused.
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
    /// No such parameter.
    #[error("{owner}.{name}: unknown parameter; allowed: {allowed}")]
    Unknown {
        /// What the parameter was given for.
        owner: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        allowed: String,
    },
    /// A value outside of its range or of the wrong kind.
    #[error("{owner}.{name}: expected {allowed}, got {given}")]
    Invalid {
        /// What the parameter was given for.
        owner: &'static str,
        /// The parameter.
        name: &'static str,
        /// What is allowed.
        allowed: String,
        /// The value given.
        given: String,
    },
    /// A parameter that the other values leave without effect.
    #[error("{owner}.{name}: not used where {because}, so it must not be set (got {given})")]
    Unused {
        /// What the parameter was given for.
        owner: &'static str,
        /// The parameter.
        name: &'static str,
        /// The setting that makes it ineffective.
        because: String,
        /// The value given.
        given: String,
    },
}

impl Parameter {
    /// `value`, if it is in the parameter's range.
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

    /// What is allowed, in words.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Number { range, .. } | Kind::Derived { range, .. } => allowed_numbers(self.name, range),
            Kind::Choice { options, .. } => format!("one of {}", options.join(", ")),
            Kind::Count { least, most, .. } => format!("a whole number, {least} <= {} <= {most}", self.name),
            Kind::Switch { .. } => "true or false".to_owned(),
            Kind::Terms { .. } => "a list of methods by name, each with its parameters and a weight".to_owned(),
        }
    }

    /// The default value; how it follows another parameter, if it does.
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
