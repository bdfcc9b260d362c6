//! Why no objective is built.

use crate::parameter::ParameterError;

/// Why no objective was built.
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
    /// No method of this name.
    #[error("{name}: unknown method; allowed: {allowed}")]
    Unknown {
        /// The name given.
        name: String,
        /// The names that exist.
        allowed: String,
    },
    /// No method's name.
    #[error("name: expected a method's name, got {given}")]
    Unnamed {
        /// What was given.
        given: String,
    },
    /// A parameter that the method refuses.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}
