//! A method with its parameters, in the form of recipes.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::Objective;
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Registered, Value, check};
use crate::registry::{self, RegistryError};

/// Key of the method's name.
pub(crate) const NAME: &str = "name";

/// A method at valid parameters: a table of its `name` and parameters, those left out at their defaults.
///
/// Reading checks everything once, and refuses what is unknown, out of range or without effect; writing spells out
/// every parameter in force, and reads back as the same objective.
///
/// # Examples
///
/// ```
/// use objective::Configured;
///
/// let dpo: Configured = serde_json::from_str(r#"{"name": "dpo", "beta": 0.2}"#)?;
/// assert_eq!(serde_json::to_value(&dpo)?["label_smoothing"], 0.0);
/// assert_eq!(dpo.objective().parameters()["beta"], 0.2.into());
///
/// let error = serde_json::from_str::<Configured>(r#"{"name": "dpo", "beat": 0.2}"#).unwrap_err();
/// assert!(error.to_string().starts_with("dpo.beat: unknown parameter; allowed: beta, label_smoothing"));
/// Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "Parameters")]
pub struct Configured {
    method: Method,
    objective: Arc<dyn Objective>,
}

/// The parameters of a method include those that were left out when it was made:
///
/// ```
/// use objective::{Configured, Parameters};
///
/// let hinge = Configured::try_from(Parameters::from([("name".to_owned(), "hinge".into())]))?;
/// let parameters = Parameters::from(&hinge);
/// assert_eq!((&parameters["name"], &parameters["tail_weight"]), (&"hinge".into(), &1.0.into()));
/// Ok::<(), objective::RegistryError>(())
/// ```
impl Configured {
    /// Makes a method from a typed objective.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a parameter that is out of range or without effect under the others.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::{Configured, Dpo};
    ///
    /// assert_eq!(Configured::of(Dpo { beta: 0.2, ..Dpo::default() })?.method().name, "dpo");
    /// let error = Configured::of(Dpo { beta: -1.0, ..Dpo::default() }).unwrap_err();
    /// assert_eq!(error.to_string(), "dpo.beta: expected a number, 1e-9 <= beta <= 1e6, got -1");
    /// Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn of<T: Registered + Objective>(objective: T) -> Result<Self, ParameterError> {
        check(T::METHOD.name, &T::default(), &objective)?;
        Ok(Self::unchecked(objective))
    }

    /// The method of this name with these parameters; those left out take their defaults.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] for an unknown name, and for a parameter that is unknown, out of range or without effect.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::{Configured, Parameters};
    ///
    /// let kto = Configured::named("kto", &[("beta".to_owned(), 0.2.into())].into())?;
    /// assert_eq!(kto.objective().parameters()["beta"], 0.2.into());
    /// assert_ne!(kto, Configured::named("kto", &Parameters::new())?);
    /// Ok::<(), objective::RegistryError>(())
    /// ```
    pub fn named(name: &str, parameters: &Parameters) -> Result<Self, RegistryError> {
        let method = *registry::find(name)?;
        Ok(Self { method, objective: (method.build)(parameters)?.into() })
    }

    pub(crate) fn unchecked<T: Registered + Objective>(objective: T) -> Self {
        Self { method: T::METHOD, objective: Arc::new(objective) }
    }

    /// Entry of the method in the registry.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Borrows the objective.
    pub fn objective(&self) -> &dyn Objective {
        &*self.objective
    }

    /// Returns the objective without its registry entry.
    pub fn into_objective(self) -> Box<dyn Objective> {
        Box::new(self.objective)
    }
}

impl TryFrom<Parameters> for Configured {
    type Error = RegistryError;

    fn try_from(mut parameters: Parameters) -> Result<Self, RegistryError> {
        let name = match parameters.remove(NAME) {
            Some(Value::Text(name)) => name,
            other => {
                let given = other.map_or("none".to_owned(), |value| value.to_string());
                return Err(RegistryError::Unnamed { given });
            }
        };
        Self::named(&name, &parameters)
    }
}

/// Two configured methods are equal if their names and all their parameters are equal.
impl PartialEq for Configured {
    fn eq(&self, other: &Self) -> bool {
        Parameters::from(self) == Parameters::from(other)
    }
}

impl From<&Configured> for Parameters {
    fn from(configured: &Configured) -> Self {
        let mut parameters = configured.objective.parameters();
        parameters.insert(NAME.to_owned(), configured.method.name.into());
        parameters
    }
}

impl Serialize for Configured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Parameters::from(self).serialize(serializer)
    }
}
