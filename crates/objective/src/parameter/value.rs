//! Values of parameters in recipes, command lines and messages.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A parameter's value as a recipe, a command line or a JSON line gives it.
///
/// Text is parsed as a number or a boolean if possible; messages quote only names:
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
    /// A switch that is on or off.
    Switch(bool),
    /// A numeric value.
    Number(f64),
    /// A name of a choice.
    Text(String),
    /// Methods by name, each with its parameters and its weight.
    Terms(Vec<Parameters>),
}

/// Values by the names of parameters.
pub type Parameters = BTreeMap<String, Value>;

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

    /// Parses a number or a boolean if possible; any other text is a name.
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
