//! RMSprop, AdamW and SGD over slices of parameters, with PyTorch's formulas and defaults: one file each.

mod adamw;
mod rmsprop;
mod sgd;

use std::ops::Range;

use objective::Method;
use objective::parameter::{ParameterError, Parameters, Registered, in_force};
use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

pub use self::adamw::AdamW;
pub use self::rmsprop::RmsProp;
pub use self::sgd::Sgd;

/// Every optimizer, the default first.
pub static OPTIMIZERS: &[Method<OptimizerSettings>] = &[RmsProp::METHOD, AdamW::METHOD, Sgd::METHOD];

/// An optimizer and its parameters. A recipe spells it as a table of its `name` and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters", into = "Parameters")]
pub enum OptimizerSettings {
    /// RMSprop.
    RmsProp(RmsProp),
    /// AdamW.
    AdamW(AdamW),
    /// Stochastic gradient descent.
    Sgd(Sgd),
}

/// Why no optimizer was built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptimizerError {
    /// No optimizer of this name.
    #[error("optimizer: expected one of {allowed}, got \"{name}\"")]
    Unknown {
        /// The name given.
        name: String,
        /// The names that exist.
        allowed: String,
    },
    /// A parameter that the optimizer refuses.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}

/// Settings with their state over a slice of parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// Mean gradient (AdamW) or momentum buffer.
    first: Vec<f64>,
    /// Mean squared gradient.
    second: Vec<f64>,
    /// Updates so far.
    steps: i32,
}

impl OptimizerSettings {
    /// The optimizer of this name; parameters left out take PyTorch's defaults.
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

    /// The name in recipes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RmsProp(_) => RmsProp::METHOD.name,
            Self::AdamW(_) => AdamW::METHOD.name,
            Self::Sgd(_) => Sgd::METHOD.name,
        }
    }

    /// Whether a mean gradient or momentum buffer is kept, and whether a mean squared gradient is.
    pub fn moments(&self) -> (bool, bool) {
        match self {
            Self::RmsProp(own) => (own.momentum > 0.0, true),
            Self::AdamW(_) => (true, true),
            Self::Sgd(own) => (own.momentum > 0.0, false),
        }
    }

    /// The parameters in force, defaults included.
    pub fn parameters(&self) -> Parameters {
        match self {
            Self::RmsProp(own) => in_force(own),
            Self::AdamW(own) => in_force(own),
            Self::Sgd(own) => in_force(own),
        }
    }

    /// Whether parameters without a gradient move.
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
    /// The state before the first update of as many parameters.
    pub fn new(settings: OptimizerSettings, parameters: usize) -> Self {
        let (first, second) = settings.moments();
        let zeros = |needed: bool| vec![0.0; if needed { parameters } else { 0 }];
        Self { settings, first: zeros(first), second: zeros(second), steps: 0 }
    }

    /// One update along the gradient times `gradient_scale`. The slices have as many elements as the state.
    pub fn update(&mut self, parameters: &mut [f64], gradient: &[f64], learning_rate: f64, gradient_scale: f64) {
        let whole = 0..parameters.len();
        self.update_ranges(parameters, gradient, learning_rate, gradient_scale, std::slice::from_ref(&whole));
    }

    /// The same, where elements outside of the ranges, which do not overlap, have never had a gradient: they stay where they
    /// are, and are passed over, unless weight decay moves them.
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

/// An update, compiled for the vectors that the processor has: no closure, as its body need not be inlined into what is compiled
/// for them. Products and sums are never contracted, so that the bits are those of any processor.
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

/// What an update reads and writes, element by element.
struct Slices<'a> {
    parameters: &'a mut [f64],
    gradient: &'a [f64],
    /// Mean gradient or momentum buffer; empty where none is kept.
    first: &'a mut [f64],
    /// Mean squared gradient; empty where none is kept.
    second: &'a mut [f64],
    learning_rate: f64,
    gradient_scale: f64,
    /// Number of the update, from 1.
    steps: i32,
}
