//! Errors of the registry.

use crate::parameter::ParameterError;

/// Reason why an objective cannot be built.
///
/// ```
/// use objective::{Configured, Parameters, registry};
///
/// let error = registry::find("sftt").unwrap_err();
/// assert!(error.to_string().starts_with("sftt: unknown method; allowed: sft, dpo, orpo, "));
/// let error = Configured::try_from(Parameters::new()).unwrap_err();
/// assert_eq!(error.to_string(), "name: expected a method's name, got none");
/// let error = registry::build("orpo", &[("beta".to_owned(), (-1.0).into())].into()).unwrap_err();
/// assert_eq!(error.to_string(), "orpo.beta: expected a number, 0 <= beta <= 1e6, got -1");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// An unknown method.
    #[error("{name}: unknown method; allowed: {allowed}")]
    Unknown {
        /// Given name.
        name: String,
        /// Names of all methods.
        allowed: String,
    },
    /// A missing name, or a value that is no name.
    #[error("name: expected a method's name, got {given}")]
    Unnamed {
        /// Description of the given value.
        given: String,
    },
    /// A parameter that the method rejects.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}
