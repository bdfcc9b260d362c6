//! Declared parameters: each is named, bounded, explained and defaulted in one place, and read through it.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::table::{Choice, Declared, Field, Registered, Typed, build, check, declared, in_force, purpose, read};

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
///
/// ```
/// use objective::{clip, divergence, parameter::Kind, sampling};
///
/// assert!(matches!(sampling::samples(8).kind, Kind::Count { default: 8, least: 2, .. }));
/// assert!(matches!(divergence::DIVERGENCE.kind, Kind::Choice { default: "reverse_kl", .. }));
/// assert!(matches!(clip::CLIP_HIGH.kind, Kind::Derived { default: "clip", .. }));
/// ```
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
/// # Ok::<(), objective::ParameterError>(())
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

/// A parameter's value as a recipe, a command line or a JSON line gives it.
///
/// Text reads as a number or a switch where it can; messages quote names and nothing else:
///
/// ```
/// use objective::Value;
///
/// assert_eq!("1e-9".parse(), Ok(Value::Number(1e-9)));
/// assert_eq!("true".parse(), Ok(Value::Switch(true)));
/// assert_eq!("js".parse(), Ok(Value::Text("js".to_owned())));
/// assert_eq!(format!("{} {}", Value::from(1e-9), Value::from("js")), r#"1e-9 "js""#);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// A number.
    Number(f64),
    /// A name.
    Text(String),
    /// Methods by name, each with its parameters and its weight.
    Terms(Vec<Parameters>),
}

/// Values by parameter name.
pub type Parameters = BTreeMap<String, Value>;

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

/// Reads declared parameters out of given values; names that nobody declared are refused at once.
///
/// ```
/// use objective::parameter::{Parameters, Reader};
/// use objective::preference::BETA;
///
/// let given = Parameters::from([("beta".to_owned(), 0.5.into())]);
/// assert_eq!(Reader::new("example", &[BETA], &given)?.number(&BETA)?, 0.5);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    owner: &'static str,
    given: &'a Parameters,
}

/// A manual's line:
///
/// ```
/// use objective::preference::BETA;
///
/// let line = format!("{} ({}; default {}): {}", BETA.name, BETA.allowed(), BETA.default(), BETA.purpose);
/// assert!(line.starts_with("beta (a number, 1e-9 <= beta <= 1e6; default 0.1): scale of the implicit reward"));
/// ```
impl Parameter {
    /// `value`, if it is in the parameter's range.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] with the owner, the range and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::preference::BETA.check("dpo", 0.0).unwrap_err();
    /// assert_eq!(error.to_string(), "dpo.beta: expected a number, 1e-9 <= beta <= 1e6, got 0");
    /// ```
    pub fn check(&self, owner: &'static str, value: f64) -> Result<f64, ParameterError> {
        match self.kind {
            Kind::Number { range, .. } | Kind::Derived { range, .. } => check_number(owner, self.name, range, value),
            _ => Err(self.invalid(owner, &Value::Number(value))),
        }
    }

    /// What is allowed, in words.
    ///
    /// ```
    /// assert_eq!(objective::divergence::DIVERGENCE.allowed(), "one of reverse_kl, forward_kl, js, alpha");
    /// ```
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
    ///
    /// ```
    /// assert_eq!(objective::simpo::BETA.default(), 2.0.into());
    /// assert_eq!(objective::simpo::TARGET_MARGIN.default(), "0.8 beta".into());
    /// ```
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

/// A value of another kind is refused as one out of range is:
///
/// ```
/// use objective::parameter::{Parameters, Reader};
/// use objective::preference::BETA;
///
/// let given = Parameters::from([("beta".to_owned(), "high".into())]);
/// let error = Reader::new("example", &[BETA], &given)?.number(&BETA).unwrap_err();
/// assert_eq!(error.to_string(), r#"example.beta: expected a number, 1e-9 <= beta <= 1e6, got "high""#);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl<'a> Reader<'a> {
    /// A reader of `given` on behalf of `owner`.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Unknown`] for the first name that is not in `declared`.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    ///
    /// let given = Parameters::from([("beta".to_owned(), 0.1.into())]);
    /// let error = Reader::new("example", &[], &given).unwrap_err();
    /// assert_eq!(error.to_string(), "example.beta: unknown parameter; allowed: none");
    /// ```
    pub fn new(owner: &'static str, declared: &[Parameter], given: &'a Parameters) -> Result<Self, ParameterError> {
        match given.keys().find(|name| declared.iter().all(|parameter| parameter.name != name.as_str())) {
            None => Ok(Self { owner, given }),
            Some(name) => {
                let names: Vec<_> = declared.iter().map(|parameter| parameter.name).collect();
                let allowed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(ParameterError::Unknown { owner, name: name.clone(), allowed })
            }
        }
    }

    /// The value given for a number, or its default.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value or one out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::{preference, simpo};
    ///
    /// let given = Parameters::new();
    /// let reader = Reader::new("example", &[], &given)?;
    /// assert_eq!((reader.number(&preference::BETA)?, reader.number(&simpo::BETA)?), (0.1, 2.0));
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn number(&self, parameter: &Parameter) -> Result<f64, ParameterError> {
        match self.value(parameter) {
            Value::Number(value) => parameter.check(self.owner, value),
            other => Err(parameter.invalid(self.owner, &other)),
        }
    }

    /// The value given for a derived number, if any.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value or one out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::clip::{CLIP, CLIP_HIGH};
    /// use objective::parameter::{Parameters, Reader};
    ///
    /// let given = Parameters::from([("clip".to_owned(), 0.1.into())]);
    /// let reader = Reader::new("example", &[CLIP, CLIP_HIGH], &given)?;
    /// let low = reader.number(&CLIP)?;
    /// assert_eq!(reader.derived(&CLIP_HIGH)?.unwrap_or(low), 0.1);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn derived(&self, parameter: &Parameter) -> Result<Option<f64>, ParameterError> {
        self.given.get(parameter.name).map(|_| self.number(parameter)).transpose()
    }

    /// The value given for a count, or its default.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value, a fraction or a number out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::sampling::samples;
    ///
    /// let given = Parameters::from([("samples".to_owned(), 2.5.into())]);
    /// let error = Reader::new("example", &[samples(8)], &given)?.count(&samples(8)).unwrap_err();
    /// assert_eq!(error.to_string(), "example.samples: expected a whole number, 2 <= samples <= 65536, got 2.5");
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn count(&self, parameter: &Parameter) -> Result<usize, ParameterError> {
        match (self.value(parameter), parameter.kind) {
            (Value::Number(value), Kind::Count { least, most, .. })
                if value.fract() == 0.0 && (least as f64..=most as f64).contains(&value) =>
            {
                Ok(value as usize)
            }
            (other, _) => Err(parameter.invalid(self.owner, &other)),
        }
    }

    /// The terms given, or the default ones.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::weighted_sum::TERMS;
    ///
    /// let given = Parameters::new();
    /// let terms = Reader::new("example", &[TERMS], &given)?.terms(&TERMS)?;
    /// assert_eq!(terms.iter().map(|term| &term["name"]).collect::<Vec<_>>(), [&"dpo".into(), &"sft".into()]);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn terms(&self, parameter: &Parameter) -> Result<Vec<Parameters>, ParameterError> {
        match self.value(parameter) {
            Value::Terms(terms) => Ok(terms),
            other => Err(parameter.invalid(self.owner, &other)),
        }
    }

    /// The value given for a switch, or its default.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Kind, Parameter, Parameters, Reader};
    ///
    /// let sort = Parameter { name: "sort", kind: Kind::Switch { default: true }, purpose: "longest first" };
    /// let (given, none) = (Parameters::from([("sort".to_owned(), false.into())]), Parameters::new());
    /// assert!(!Reader::new("example", &[sort], &given)?.switch(&sort)?);
    /// assert!(Reader::new("example", &[sort], &none)?.switch(&sort)?);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn switch(&self, parameter: &Parameter) -> Result<bool, ParameterError> {
        match self.value(parameter) {
            Value::Switch(value) => Ok(value),
            other => Err(parameter.invalid(self.owner, &other)),
        }
    }

    /// The value given for a choice, or its default.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value or a name that is not among the options.
    ///
    /// # Examples
    ///
    /// A number names the option that is spelt like it:
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::tdpo::{VARIANT, VariantName};
    ///
    /// let given = Parameters::from([("variant".to_owned(), 1.0.into())]);
    /// let name: VariantName = Reader::new("example", &[VARIANT], &given)?.choice(&VARIANT)?;
    /// assert_eq!(name, VariantName::First);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn choice<T: FromStr>(&self, parameter: &Parameter) -> Result<T, ParameterError> {
        let value = self.value(parameter);
        let name = match &value {
            Value::Text(name) => name.clone(),
            // Variants may be numbered.
            other => other.to_string(),
        };
        name.parse().map_err(|_| parameter.invalid(self.owner, &value))
    }

    /// Refuses a parameter that the other values leave without effect.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Unused`] if it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::tdpo::ALPHA;
    ///
    /// let given = Parameters::from([("alpha".to_owned(), 0.5.into())]);
    /// let error = Reader::new("example", &[ALPHA], &given)?.refuse(&ALPHA, "variant = 1").unwrap_err();
    /// assert_eq!(error.to_string(), "example.alpha: not used where variant = 1, so it must not be set (got 0.5)");
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn refuse(&self, parameter: &Parameter, because: impl fmt::Display) -> Result<(), ParameterError> {
        match self.given.get(parameter.name) {
            None => Ok(()),
            Some(given) => Err(ParameterError::Unused {
                owner: self.owner,
                name: parameter.name,
                because: because.to_string(),
                given: given.to_string(),
            }),
        }
    }

    fn value(&self, parameter: &Parameter) -> Value {
        self.given.get(parameter.name).cloned().unwrap_or_else(|| parameter.default())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Switch(value) => value.fmt(f),
            Value::Number(value) if *value != 0.0 && !(1e-4..1e6).contains(&value.abs()) => write!(f, "{value:e}"),
            Value::Number(value) => value.fmt(f),
            Value::Text(value) => write!(f, "\"{value}\""),
            Value::Terms(terms) => {
                let assignment = |(name, value): (&String, &Value)| format!("{name} = {value}");
                let table =
                    |term: &Parameters| format!("{{{}}}", term.iter().map(assignment).collect::<Vec<_>>().join(", "));
                write!(f, "[{}]", terms.iter().map(table).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Number(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Switch(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl FromStr for Value {
    type Err = std::convert::Infallible;

    /// A number or a switch where the text reads as one, a name otherwise.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text.parse(), text.parse()) {
            (Ok(number), _) => Value::Number(number),
            (_, Ok(switch)) => Value::Switch(switch),
            _ => text.into(),
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a name, true, false or a list of methods")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Switch(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut terms = Vec::new();
                while let Some(term) = seq.next_element()? {
                    terms.push(term);
                }
                Ok(Value::Terms(terms))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
