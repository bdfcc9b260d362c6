//! Stochastic gradient descent.

use objective::objective;
use objective::parameter::{BELOW_ONE, NON_NEGATIVE};

use super::{OptimizerSettings, Slices};

objective! {
    /// The gradient, with momentum if wanted.
    ///
    /// With θ the parameters, g the gradient, η the learning rate, d the weight decay and m the momentum, element by
    /// element: g += d θ; with momentum b = m b + g (b = g at first) and u = b, or u = g + m b (Nesterov); without it u
    /// = g; θ −= η u.
    ///
    /// Source: formula and defaults of PyTorch 2.11, `torch.optim.SGD`.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Sgd = "sgd",
        "the gradient, with momentum where asked",
        "PyTorch 2.11, torch.optim.SGD",
        OptimizerSettings of "optimizer"
    {
        /// Decay rate m of the momentum.
        momentum: f64 [BELOW_ONE] = 0.0,
        /// Whether to use Nesterov momentum.
        nesterov: bool = false => unused |own| (own.momentum == 0.0).then(|| "momentum = 0".to_owned()),
        /// Multiple of the parameters that is added to the gradient.
        weight_decay: f64 [NON_NEGATIVE] = 0.0,
    }
}

impl Sgd {
    #[inline(always)]
    pub(super) fn update(&self, slices: Slices<'_>) {
        let Self { momentum, nesterov, weight_decay } = *self;
        let Slices { parameters, gradient, first, second: _, learning_rate, gradient_scale, steps: _ } = slices;
        let direction = |parameter: f64, gradient: f64| gradient_scale * gradient + weight_decay * parameter;
        if momentum > 0.0 {
            for ((parameter, gradient), buffer) in parameters.iter_mut().zip(gradient).zip(first) {
                let gradient = direction(*parameter, *gradient);
                // The buffer begins with zeros, so its first value is the first gradient.
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
