//! What an objective's file declares of itself, for registry, manual and tables.

use crate::Objective;
use crate::parameter::{Parameter, ParameterError, Parameters};

/// An objective's name, origin, parameters and constructor.
///
/// ```
/// let orpo = objective::registry::find("orpo")?;
/// assert_eq!((orpo.parameters)()[0].name, "beta");
/// assert_eq!((orpo.build)(&[("beta".to_owned(), 0.5.into())].into())?.parameters()["beta"], 0.5.into());
/// Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The name in recipes and on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper and equation.
    pub source: &'static str,
    /// Every parameter.
    pub parameters: fn() -> Vec<Parameter>,
    /// Builds the objective; parameters left out take their defaults.
    pub build: fn(&Parameters) -> Result<Box<dyn Objective>, ParameterError>,
}
