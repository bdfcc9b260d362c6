//! The optimizer AdamW.

use objective::objective;
use objective::parameter::{BELOW_ONE, NON_NEGATIVE, POSITIVE};

use super::{OptimizerSettings, Slices};

objective! {
    /// The mean gradient over the root of its mean square, with weight decay apart from both.
    ///
    /// With θ the parameters, g the gradient, η the learning rate, d the weight decay and k the update's number, from
    /// 1, element by element: θ −= η d θ; a = β₁ a + (1 − β₁) g; v = β₂ v + (1 − β₂) g²; θ −= η (a / (1 − β₁ᵏ)) / (√(v
    /// / (1 − β₂ᵏ)) + ε).
    ///
    /// Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101; formula and
    /// defaults of PyTorch 2.11, `torch.optim.AdamW`.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct AdamW = "adamw",
        "the mean gradient over the root of its mean square, with decoupled weight decay",
        "arXiv 1711.05101; PyTorch 2.11, torch.optim.AdamW",
        OptimizerSettings of "optimizer"
    {
        /// Decay rate β₁ of the mean gradient.
        beta1: f64 [BELOW_ONE] = 0.9,
        /// Decay rate β₂ of the mean squared gradient.
        beta2: f64 [BELOW_ONE] = 0.999,
        /// Number ε added to the root of the mean squared gradient.
        epsilon: f64 [POSITIVE] = 1e-8,
        /// Fraction of the parameters that is subtracted per unit of learning rate.
        weight_decay: f64 [NON_NEGATIVE] = 0.01,
    }
}

impl AdamW {
    #[inline(always)]
    pub(super) fn update(&self, slices: Slices<'_>) {
        let Self { beta1, beta2, epsilon, weight_decay } = *self;
        let Slices { parameters, gradient, first, second, learning_rate, gradient_scale, steps } = slices;
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
}
