//! RMSprop, AdamW and SGD over slices of parameters, with PyTorch's formulas and defaults, one file each.

mod adamw;
mod rmsprop;
mod sgd;

use std::ops::Range;

use objective::parameter::{Registered, in_force};
use objective::{Method, ParameterError, Parameters};
use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

pub use self::adamw::AdamW;
pub use self::rmsprop::RmsProp;
pub use self::sgd::Sgd;

/// Every optimizer, the default first.
pub const OPTIMIZERS: &[Method<OptimizerSettings>] = &[RmsProp::METHOD, AdamW::METHOD, Sgd::METHOD];

/// An optimizer and its parameters. In a recipe it is a table of its `name` and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters", into = "Parameters")]
pub enum OptimizerSettings {
    /// Root-mean-square propagation.
    RmsProp(RmsProp),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// Stochastic gradient descent.
    Sgd(Sgd),
}

/// Error about an optimizer's name or parameters.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptimizerError {
    /// An unknown optimizer.
    #[error("optimizer: expected one of {allowed}, got \"{name}\"")]
    Unknown {
        /// The given name.
        name: String,
        /// Names of all optimizers.
        allowed: String,
    },
    /// An invalid parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}

/// An optimizer with its state for a slice of parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// Mean gradient (AdamW) or momentum buffer.
    first: Vec<f64>,
    /// Mean squared gradient.
    second: Vec<f64>,
    /// Number of updates so far.
    steps: i32,
}

impl OptimizerSettings {
    /// Makes the settings of the optimizer with this name; absent parameters have PyTorch's defaults.
    ///
    /// # Errors
    ///
    /// [`OptimizerError`] for an unknown name, and for a parameter that is unknown, out of range or without effect.
    pub fn build(name: &str, given: &Parameters) -> Result<Self, OptimizerError> {
        let entry = OPTIMIZERS.iter().find(|entry| entry.name == name).ok_or_else(|| OptimizerError::Unknown {
            name: name.to_owned(),
            allowed: OPTIMIZERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
        })?;
        Ok((entry.build)(given)?)
    }

    /// Name of the optimizer in recipes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RmsProp(_) => RmsProp::METHOD.name,
            Self::AdamW(_) => AdamW::METHOD.name,
            Self::Sgd(_) => Sgd::METHOD.name,
        }
    }

    /// Whether the state has a mean gradient or momentum buffer, and whether it has a mean squared gradient.
    pub fn moments(&self) -> (bool, bool) {
        match self {
            Self::RmsProp(own) => (own.momentum > 0.0, true),
            Self::AdamW(_) => (true, true),
            Self::Sgd(own) => (own.momentum > 0.0, false),
        }
    }

    /// All parameters with their values, including defaults.
    pub fn parameters(&self) -> Parameters {
        match self {
            Self::RmsProp(own) => in_force(own),
            Self::AdamW(own) => in_force(own),
            Self::Sgd(own) => in_force(own),
        }
    }

    /// Whether weight decay changes parameters without a gradient.
    fn decays(&self) -> bool {
        let (Self::RmsProp(RmsProp { weight_decay, .. })
        | Self::AdamW(AdamW { weight_decay, .. })
        | Self::Sgd(Sgd { weight_decay, .. })) = self;
        *weight_decay > 0.0
    }
}

/// The key of the optimizer's name.
const NAME: &str = "name";

impl TryFrom<Parameters> for OptimizerSettings {
    type Error = OptimizerError;

    fn try_from(mut parameters: Parameters) -> Result<Self, OptimizerError> {
        let name = parameters.remove(NAME).map_or_else(String::new, |name| name.to_string());
        Self::build(name.trim_matches('"'), &parameters)
    }
}

impl From<OptimizerSettings> for Parameters {
    fn from(settings: OptimizerSettings) -> Self {
        let mut parameters = settings.parameters();
        parameters.insert(NAME.to_owned(), settings.name().into());
        parameters
    }
}

impl Optimizer {
    /// Makes an optimizer for this many parameters, before its first update.
    pub fn new(settings: OptimizerSettings, parameters: usize) -> Self {
        let (first, second) = settings.moments();
        let zeros = |needed: bool| vec![0.0; if needed { parameters } else { 0 }];
        Self { settings, first: zeros(first), second: zeros(second), steps: 0 }
    }

    /// Updates the parameters with the gradient times `gradient_scale`. The slices have as many elements as the state.
    pub fn update(&mut self, parameters: &mut [f64], gradient: &[f64], learning_rate: f64, gradient_scale: f64) {
        let whole = 0..parameters.len();
        self.update_ranges(parameters, gradient, learning_rate, gradient_scale, std::slice::from_ref(&whole));
    }

    /// Updates the parameters within the given disjoint ranges only. All others must never have had a gradient: an
    /// update leaves them unchanged, and they are skipped unless weight decay changes them.
    pub fn update_ranges(
        &mut self,
        parameters: &mut [f64],
        gradient: &[f64],
        learning_rate: f64,
        gradient_scale: f64,
        ranges: &[Range<usize>],
    ) {
        self.steps = self.steps.saturating_add(1);
        let whole = 0..parameters.len();
        let ranges = if self.settings.decays() { std::slice::from_ref(&whole) } else { ranges };
        Arch::new().dispatch(Update { optimizer: self, parameters, gradient, learning_rate, gradient_scale, ranges });
    }
}

/// An update, which is compiled for the vector instructions of several processors. It is a struct, as a closure's body
/// need not be inlined into the compiled versions. Products and sums are never contracted, so that all processors
/// compute the same bits.
struct Update<'a> {
    optimizer: &'a mut Optimizer,
    parameters: &'a mut [f64],
    gradient: &'a [f64],
    learning_rate: f64,
    gradient_scale: f64,
    ranges: &'a [Range<usize>],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { optimizer, parameters, gradient, learning_rate, gradient_scale, ranges } = self;
        let Optimizer { settings, first, second, steps } = optimizer;
        for range in ranges {
            let part = |state: &[f64]| if state.is_empty() { 0..0 } else { range.clone() };
            let (first_part, second_part) = (part(first), part(second));
            let slices = Slices {
                parameters: &mut parameters[range.clone()],
                gradient: &gradient[range.clone()],
                first: &mut first[first_part],
                second: &mut second[second_part],
                learning_rate,
                gradient_scale,
                steps: *steps,
            };
            match settings {
                OptimizerSettings::RmsProp(own) => own.update(slices),
                OptimizerSettings::AdamW(own) => own.update(slices),
                OptimizerSettings::Sgd(own) => own.update(slices),
            }
        }
    }
}

/// Slices that an update reads and writes, element by element.
struct Slices<'a> {
    parameters: &'a mut [f64],
    gradient: &'a [f64],
    /// Mean gradient or momentum buffer; empty if there is none.
    first: &'a mut [f64],
    /// Mean squared gradient; empty if there is none.
    second: &'a mut [f64],
    learning_rate: f64,
    gradient_scale: f64,
    /// Number of the update, from 1.
    steps: i32,
}
