//! Registry entries of objectives and optimizers, for lookup by name, manuals and tables.

use crate::Objective;
use crate::parameter::{Parameter, ParameterError, Parameters};

/// An entry of a catalogue: name, origin, parameters and constructor of an objective, or of something else that is
/// built from declared parameters.
///
/// ```
/// let orpo = objective::registry::find("orpo")?;
/// assert_eq!((orpo.parameters)()[0].name, "beta");
/// assert_eq!((orpo.build)(&[("beta".to_owned(), 0.5.into())].into())?.parameters()["beta"], 0.5.into());
/// Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Debug)]
pub struct Method<Built = Box<dyn Objective>> {
    /// Name in recipes and on the command line.
    pub name: &'static str,
    /// One-line summary.
    pub summary: &'static str,
    /// Paper and equation.
    pub source: &'static str,
    /// All parameters.
    pub parameters: fn() -> Vec<Parameter>,
    /// Builds the object; absent parameters have their defaults.
    pub build: fn(&Parameters) -> Result<Built, ParameterError>,
}

impl<Built> Clone for Method<Built> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Built> Copy for Method<Built> {}
