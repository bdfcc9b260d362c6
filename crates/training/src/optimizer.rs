//! RMSprop, AdamW and SGD over slices of parameters, with PyTorch's formulas.
//!
//! With θ the parameters, g the gradient, η the learning rate and d the weight decay, element by element:
//!
//! | name | update |
//! |---|---|
//! | `rmsprop` | g += d θ; v = s v + (1 − s) g²; u = g / (√v + ε); with momentum m: b = m b + u, u = b; θ −= η u |
//! | `adamw` | θ −= η d θ; a = β₁ a + (1 − β₁) g; v = β₂ v + (1 − β₂) g²; θ −= η (a / (1 − β₁ᵏ)) / (√(v / (1 − β₂ᵏ)) + ε) |
//! | `sgd` | g += d θ; with momentum m: b = m b + g (b = g at first), u = b or g + m b (Nesterov), else u = g; θ −= η u |
//!
//! Source: PyTorch 2.11, `torch.optim.RMSprop`, `AdamW` and `SGD`, whose defaults these are.

use std::ops::Range;

use objective::parameter::{BELOW_ONE, Kind, NON_NEGATIVE, POSITIVE, Parameter, ParameterError, Parameters, Reader};
use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

/// Every optimizer, the default first.
pub const OPTIMIZERS: &[OptimizerKind] = &[
    OptimizerKind {
        name: RMSPROP,
        summary: "the gradient over the root of its mean square",
        parameters: &[SMOOTHING, EPSILON, MOMENTUM, WEIGHT_DECAY],
        build: build_rmsprop,
    },
    OptimizerKind {
        name: ADAMW,
        summary: "the mean gradient over the root of its mean square, with decoupled weight decay",
        parameters: &[BETA1, BETA2, EPSILON, DECOUPLED_WEIGHT_DECAY],
        build: build_adamw,
    },
    OptimizerKind {
        name: SGD,
        summary: "the gradient, with momentum where asked",
        parameters: &[MOMENTUM, NESTEROV, WEIGHT_DECAY],
        build: build_sgd,
    },
];

const RMSPROP: &str = "rmsprop";
const ADAMW: &str = "adamw";
const SGD: &str = "sgd";

const SMOOTHING: Parameter = Parameter {
    name: "smoothing",
    kind: Kind::Number { default: 0.99, range: BELOW_ONE },
    purpose: "memory of the mean squared gradient",
};
const EPSILON: Parameter = Parameter {
    name: "epsilon",
    kind: Kind::Number { default: 1e-8, range: POSITIVE },
    purpose: "added to the root of the mean squared gradient",
};
const MOMENTUM: Parameter = Parameter {
    name: "momentum",
    kind: Kind::Number { default: 0.0, range: BELOW_ONE },
    purpose: "memory of the update",
};
const NESTEROV: Parameter =
    Parameter { name: "nesterov", kind: Kind::Switch { default: false }, purpose: "look ahead along the momentum" };
const WEIGHT_DECAY: Parameter = Parameter {
    name: "weight_decay",
    kind: Kind::Number { default: 0.0, range: NON_NEGATIVE },
    purpose: "multiple of the parameters that is added to the gradient",
};
const DECOUPLED_WEIGHT_DECAY: Parameter = Parameter {
    name: "weight_decay",
    kind: Kind::Number { default: 0.01, range: NON_NEGATIVE },
    purpose: "share of the parameters that is taken away per unit of learning rate",
};
const BETA1: Parameter = Parameter {
    name: "beta1",
    kind: Kind::Number { default: 0.9, range: BELOW_ONE },
    purpose: "memory of the mean gradient",
};
const BETA2: Parameter = Parameter {
    name: "beta2",
    kind: Kind::Number { default: 0.999, range: BELOW_ONE },
    purpose: "memory of the mean squared gradient",
};

/// What is known of an optimizer by its name.
#[derive(Clone, Copy, Debug)]
pub struct OptimizerKind {
    /// The name in recipes and on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Every parameter.
    pub parameters: &'static [Parameter],
    build: fn(&Reader<'_>) -> Result<OptimizerSettings, ParameterError>,
}

/// An optimizer and its parameters. A recipe spells it as a table of its `name` and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters", into = "Parameters")]
pub enum OptimizerSettings {
    /// G. Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012.
    RmsProp {
        /// Memory of the mean squared gradient.
        smoothing: f64,
        /// Added to the root.
        epsilon: f64,
        /// Memory of the update.
        momentum: f64,
        /// Added to the gradient, times the parameters.
        weight_decay: f64,
    },
    /// I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    AdamW {
        /// Memory of the mean gradient.
        beta1: f64,
        /// Memory of the mean squared gradient.
        beta2: f64,
        /// Added to the root.
        epsilon: f64,
        /// Taken from the parameters, times the learning rate.
        weight_decay: f64,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Memory of the update.
        momentum: f64,
        /// Look ahead along the momentum.
        nesterov: bool,
        /// Added to the gradient, times the parameters.
        weight_decay: f64,
    },
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
        let kind = OPTIMIZERS.iter().find(|kind| kind.name == name).ok_or_else(|| OptimizerError::Unknown {
            name: name.to_owned(),
            allowed: OPTIMIZERS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "),
        })?;
        Ok((kind.build)(&Reader::new("optimizer", kind.parameters, given)?)?)
    }

    /// The name in recipes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RmsProp { .. } => RMSPROP,
            Self::AdamW { .. } => ADAMW,
            Self::Sgd { .. } => SGD,
        }
    }

    /// Whether a mean gradient or momentum buffer is kept, and whether a mean squared gradient is.
    pub fn moments(&self) -> (bool, bool) {
        match *self {
            Self::RmsProp { momentum, .. } => (momentum > 0.0, true),
            Self::AdamW { .. } => (true, true),
            Self::Sgd { momentum, .. } => (momentum > 0.0, false),
        }
    }

    /// The parameters in force, defaults included.
    pub fn parameters(&self) -> Parameters {
        let named = |parameter: Parameter, value: f64| (parameter.name.to_owned(), value.into());
        match *self {
            Self::RmsProp { smoothing, epsilon, momentum, weight_decay } => [
                named(SMOOTHING, smoothing),
                named(EPSILON, epsilon),
                named(MOMENTUM, momentum),
                named(WEIGHT_DECAY, weight_decay),
            ]
            .into(),
            Self::AdamW { beta1, beta2, epsilon, weight_decay } => [
                named(BETA1, beta1),
                named(BETA2, beta2),
                named(EPSILON, epsilon),
                named(DECOUPLED_WEIGHT_DECAY, weight_decay),
            ]
            .into(),
            Self::Sgd { momentum, nesterov, weight_decay } => {
                let mut parameters = Parameters::from([named(MOMENTUM, momentum), named(WEIGHT_DECAY, weight_decay)]);
                if momentum > 0.0 {
                    parameters.insert(NESTEROV.name.to_owned(), nesterov.into());
                }
                parameters
            }
        }
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

fn build_rmsprop(reader: &Reader<'_>) -> Result<OptimizerSettings, ParameterError> {
    Ok(OptimizerSettings::RmsProp {
        smoothing: reader.number(&SMOOTHING)?,
        epsilon: reader.number(&EPSILON)?,
        momentum: reader.number(&MOMENTUM)?,
        weight_decay: reader.number(&WEIGHT_DECAY)?,
    })
}

fn build_adamw(reader: &Reader<'_>) -> Result<OptimizerSettings, ParameterError> {
    Ok(OptimizerSettings::AdamW {
        beta1: reader.number(&BETA1)?,
        beta2: reader.number(&BETA2)?,
        epsilon: reader.number(&EPSILON)?,
        weight_decay: reader.number(&DECOUPLED_WEIGHT_DECAY)?,
    })
}

fn build_sgd(reader: &Reader<'_>) -> Result<OptimizerSettings, ParameterError> {
    let momentum = reader.number(&MOMENTUM)?;
    if momentum == 0.0 {
        reader.refuse(&NESTEROV, "momentum = 0")?;
    }
    Ok(OptimizerSettings::Sgd {
        momentum,
        nesterov: reader.switch(&NESTEROV)?,
        weight_decay: reader.number(&WEIGHT_DECAY)?,
    })
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
            let moments = (part(first), part(second));
            let moments = (&mut first[moments.0], &mut second[moments.1]);
            let (parameters, gradient) = (&mut parameters[range.clone()], &gradient[range.clone()]);
            settings.update(parameters, gradient, moments, learning_rate, gradient_scale, *steps);
        }
    }
}

impl OptimizerSettings {
    /// Whether parameters without a gradient move.
    fn decays(&self) -> bool {
        let (Self::RmsProp { weight_decay, .. } | Self::AdamW { weight_decay, .. } | Self::Sgd { weight_decay, .. }) =
            self;
        *weight_decay > 0.0
    }

    #[inline(always)]
    fn update(
        &self,
        parameters: &mut [f64],
        gradient: &[f64],
        (first, second): (&mut [f64], &mut [f64]),
        learning_rate: f64,
        gradient_scale: f64,
        steps: i32,
    ) {
        match *self {
            Self::RmsProp { smoothing, epsilon, momentum, weight_decay } => {
                let direction = |parameter: f64, gradient: f64, square: &mut f64| {
                    let gradient = gradient_scale * gradient + weight_decay * parameter;
                    *square = smoothing * *square + (1.0 - smoothing) * gradient * gradient;
                    gradient / (square.sqrt() + epsilon)
                };
                let squares = parameters.iter_mut().zip(gradient).zip(second);
                if momentum > 0.0 {
                    for (((parameter, gradient), square), buffer) in squares.zip(first) {
                        *buffer = momentum * *buffer + direction(*parameter, *gradient, square);
                        *parameter -= learning_rate * *buffer;
                    }
                } else {
                    for ((parameter, gradient), square) in squares {
                        *parameter -= learning_rate * direction(*parameter, *gradient, square);
                    }
                }
            }
            Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let step_size = learning_rate / (1.0 - beta1.powi(steps));
                let root_correction = (1.0 - beta2.powi(steps)).sqrt();
                let moments = first.iter_mut().zip(second);
                for ((parameter, gradient), (mean, square)) in parameters.iter_mut().zip(gradient).zip(moments) {
                    let gradient = gradient_scale * gradient;
                    *parameter *= 1.0 - learning_rate * weight_decay;
                    *mean += (1.0 - beta1) * (gradient - *mean);
                    *square = beta2 * *square + (1.0 - beta2) * gradient * gradient;
                    *parameter -= step_size * *mean / (square.sqrt() / root_correction + epsilon);
                }
            }
            Self::Sgd { momentum, nesterov, weight_decay } => {
                let direction = |parameter: f64, gradient: f64| gradient_scale * gradient + weight_decay * parameter;
                if momentum > 0.0 {
                    let buffers = parameters.iter_mut().zip(gradient).zip(first);
                    for ((parameter, gradient), buffer) in buffers {
                        let gradient = direction(*parameter, *gradient);
                        // The buffer begins as zeros, so that its first value is the first gradient.
                        *buffer = momentum * *buffer + gradient;
                        *parameter -= learning_rate * if nesterov { gradient + momentum * *buffer } else { *buffer };
                    }
                } else {
                    for (parameter, gradient) in parameters.iter_mut().zip(gradient) {
                        *parameter -= learning_rate * direction(*parameter, *gradient);
                    }
                }
            }
        }
    }
}
