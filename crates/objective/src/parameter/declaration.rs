//! A declared parameter.

use super::{Kind, ParameterError, Value, allowed_numbers, check_number};

/// A declared parameter: the only place of its name, default, range and purpose.
///
/// ```
/// use objective::Parameter;
/// use objective::parameter::{Kind, POSITIVE};
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
    /// Kind of value, with the allowed values and the default.
    pub kind: Kind,
    /// One sentence for manuals.
    pub purpose: &'static str,
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
