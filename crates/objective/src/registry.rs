//! Registry of all objectives by name.

pub(crate) mod error;
pub(crate) mod methods;

pub(crate) use self::error::RegistryError;
pub(crate) use self::methods::METHODS;
use crate::Objective;
use crate::losses::{A2po, RewardModel};
use crate::method::Method;
use crate::parameter::{Parameters, Registered};

/// Methods over columns that a policy cannot fill by itself: given advantages, and scores.
pub const GIVEN: &[Method] = &[A2po::METHOD, RewardModel::METHOD];

/// The method of this name.
///
/// # Errors
///
/// [`RegistryError::Unknown`] with the names that exist.
///
/// # Examples
///
/// ```
/// assert_eq!(objective::registry::find("kto")?.source, "arXiv 2402.01306, equation 7");
/// Ok::<(), objective::RegistryError>(())
/// ```
pub fn find(name: &str) -> Result<&'static Method, RegistryError> {
    let all = || METHODS.iter().chain(GIVEN);
    all().find(|method| method.name == name).ok_or_else(|| RegistryError::Unknown {
        name: name.to_owned(),
        allowed: all().map(|method| method.name).collect::<Vec<_>>().join(", "),
    })
}

/// The objective of this name with these parameters; those left out take their defaults.
///
/// # Errors
///
/// [`RegistryError`] for an unknown name, and for a parameter that is unknown, out of range or without effect.
///
/// # Examples
///
/// ```
/// let ipo = objective::registry::build("ipo", &[("beta".to_owned(), 0.5.into())].into())?;
/// assert_eq!(ipo.parameters()["beta"], 0.5.into());
/// assert_eq!(ipo.parameters()["normalisation"], "mean".into());
/// Ok::<(), objective::RegistryError>(())
/// ```
pub fn build(name: &str, parameters: &Parameters) -> Result<Box<dyn Objective>, RegistryError> {
    Ok((find(name)?.build)(parameters)?)
}
