//! Reads declared parameters one by one.

use std::fmt;
use std::str::FromStr;

use super::{Kind, Parameter, ParameterError, Parameters, Value};

/// Reads declared parameters out of given values; names that nobody declared are refused at once.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    owner: &'static str,
    given: &'a Parameters,
}

impl<'a> Reader<'a> {
    /// A reader of `given` on behalf of `owner`.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Unknown`] for the first name that is not in `declared`.
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
    pub fn derived(&self, parameter: &Parameter) -> Result<Option<f64>, ParameterError> {
        self.given.get(parameter.name).map(|_| self.number(parameter)).transpose()
    }

    /// The value given for a count, or its default.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value, a fraction or a number out of range.
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
