//! The optimizer RMSprop.

use objective::objective;
use objective::parameter::{BELOW_ONE, NON_NEGATIVE, POSITIVE};

use super::{OptimizerSettings, Slices};

objective! {
    /// The gradient over the root of its mean square: every parameter moves about as far, however steep the loss is
    /// along it.
    ///
    /// With θ the parameters, g the gradient, η the learning rate, d the weight decay, s the smoothing and m the
    /// momentum, element by element: g += d θ; v = s v + (1 − s) g²; u = g / (√v + ε); with momentum b = m b + u, u =
    /// b; θ −= η u.
    ///
    /// Source: G. Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; formula and defaults of PyTorch
    /// 2.11, `torch.optim.RMSprop`.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct RmsProp = "rmsprop",
        "the gradient over the root of its mean square",
        "PyTorch 2.11, torch.optim.RMSprop",
        OptimizerSettings of "optimizer"
    {
        /// Decay rate s of the mean squared gradient.
        smoothing: f64 [BELOW_ONE] = 0.99,
        /// Number ε added to the root of the mean squared gradient.
        epsilon: f64 [POSITIVE] = 1e-8,
        /// Decay rate m of the momentum.
        momentum: f64 [BELOW_ONE] = 0.0,
        /// Multiple of the parameters that is added to the gradient.
        weight_decay: f64 [NON_NEGATIVE] = 0.0,
    }
}

impl RmsProp {
    #[inline(always)]
    pub(super) fn update(&self, slices: Slices<'_>) {
        let Self { smoothing, epsilon, momentum, weight_decay } = *self;
        let Slices { parameters, gradient, first, second, learning_rate, gradient_scale, steps: _ } = slices;
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
}
