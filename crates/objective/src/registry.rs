//! Every objective by its name.

use crate::Objective;
use crate::losses::*;
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Registered};
use crate::policy_gradient::presets;

/// Every method, in the order of `--method all`.
pub static METHODS: &[Method] = &{
    let mut all = [PREFERENCES[0]; PREFERENCES.len() + presets::METHODS.len()];
    let mut place = 0;
    while place < all.len() {
        all[place] = match place < PREFERENCES.len() {
            true => PREFERENCES[place],
            false => presets::METHODS[place - PREFERENCES.len()],
        };
        place += 1;
    }
    all
};

/// The methods that are no policy gradients.
const PREFERENCES: &[Method] = &[
    Sft::METHOD,
    Dpo::METHOD,
    Orpo::METHOD,
    Simpo::METHOD,
    Tdpo::METHOD,
    Ift::METHOD,
    OnlineDpo::METHOD,
    Hinge::METHOD,
    Ipo::METHOD,
    Robust::METHOD,
    ExoPair::METHOD,
    NcaPair::METHOD,
    BcoPair::METHOD,
    SppoHard::METHOD,
    Aot::METHOD,
    AotUnpaired::METHOD,
    ApoZero::METHOD,
    ApoDown::METHOD,
    Discopop::METHOD,
    SigmoidNorm::METHOD,
    Cpo::METHOD,
    AlphaPo::METHOD,
    Dpop::METHOD,
    Kto::METHOD,
    ApoZeroUnpaired::METHOD,
    Bco::METHOD,
    Distillation::METHOD,
    IwOpd::METHOD,
    WeightedSum::METHOD,
];

/// Methods over columns that no policy fills by itself: advantages that somebody computed, and scores.
pub const GIVEN: &[Method] = &[A2po::METHOD, RewardModel::METHOD];

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
