//! RMSprop, AdamW and SGD over a model's tensors, with the formulas and settings of [`training::optimizer`].
//!
//! The state is in 32 bits. 16-bit weights lose small updates to rounding, so they are either rounded stochastically,
//! which is correct on average, or kept as 32-bit copies too ([`Precision`]).
//!
//! On a CPU, all operations of an update run on one block of a parameter before the next, so that the block stays in
//! the cache.

use rayon::prelude::*;
use strum::{Display, EnumString, VariantNames};
use tch::{Kind, Tensor, no_grad};
use training::{AdamW, OptimizerSettings, RmsProp, Sgd};

use crate::error::LmError;

/// Elements of a block. libtorch uses one thread for fewer than 2¹⁵ elements.
const BLOCK: i64 = (1 << 15) - 64;

/// Treatment of updates smaller than the last bit of 16-bit weights.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Precision {
    /// Stochastic rounding: each weight is rounded up or down at random, so that the mean is exact. It needs no memory.
    Stochastic,
    /// Master weights: a 32-bit copy is updated, and rounded for the model. It needs four bytes per parameter.
    Masters,
}

/// An optimizer with its state for a model's parameters.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    precision: Precision,
    /// Seed of stochastic rounding.
    seed: u64,
    /// Number of updates so far.
    steps: u64,
    states: Vec<State>,
}

/// State of a parameter; a tensor is `None` if the settings do not need it, or before the first update.
#[derive(Debug, Default)]
pub struct State {
    /// Mean gradient (AdamW) or momentum buffer.
    pub first: Option<Tensor>,
    /// Mean squared gradient.
    pub second: Option<Tensor>,
    /// The parameter in 32 bits.
    pub master: Option<Tensor>,
}

/// Role of a tensor of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Slot {
    /// The tensor [`State::first`].
    First,
    /// The tensor [`State::second`].
    Second,
    /// The tensor [`State::master`].
    Master,
}

impl Slot {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::First, Self::Second, Self::Master];
}

impl Optimizer {
    /// Makes an optimizer before its first update. `seed` is that of stochastic rounding.
    pub fn new(settings: OptimizerSettings, precision: Precision, seed: u64) -> Self {
        Self { settings, precision, seed, steps: 0, states: Vec::new() }
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.steps
    }

    /// State of each parameter; empty before the first update.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Restores the state after `updates` updates of `parameters` parameters, from tensors by the indices of the
    /// parameters.
    pub fn restore(&mut self, updates: u64, parameters: usize, kept: Vec<(usize, Slot, Tensor)>) {
        self.steps = updates;
        self.states = Vec::new();
        self.states.resize_with(parameters, State::default);
        for (index, slot, tensor) in kept {
            if let Some(state) = self.states.get_mut(index) {
                *state.slot(slot) = Some(tensor);
            }
        }
    }

    /// Updates `parameters` in place, with the gradients times `gradient_scale`. Parameters without a gradient are
    /// unchanged.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn update(
        &mut self,
        parameters: &[&Tensor],
        gradients: &[Option<Tensor>],
        learning_rate: f64,
        gradient_scale: f64,
    ) -> Result<(), LmError> {
        self.steps += 1;
        self.states.resize_with(parameters.len(), State::default);
        let step = Step {
            settings: self.settings,
            steps: i32::try_from(self.steps).unwrap_or(i32::MAX),
            learning_rate,
            gradient_scale,
        };
        no_grad(|| {
            for (index, ((parameter, gradient), state)) in
                parameters.iter().zip(gradients).zip(&mut self.states).enumerate()
            {
                let Some(gradient) = gradient else { continue };
                state.fill(&self.settings, self.precision, parameter)?;
                let rounds = parameter.f_kind()? != Kind::Float && state.master.is_none();
                let draws = if rounds { Some(draws(self.seed, self.steps, index, parameter)?) } else { None };
                step.update(parameter, gradient, state, draws.as_ref())?;
            }
            Ok(())
        })
    }
}

impl State {
    fn slot(&mut self, slot: Slot) -> &mut Option<Tensor> {
        match slot {
            Slot::First => &mut self.first,
            Slot::Second => &mut self.second,
            Slot::Master => &mut self.master,
        }
    }

    /// Existing tensors of the state with their roles.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Tensor)> {
        let slots = [(Slot::First, &self.first), (Slot::Second, &self.second), (Slot::Master, &self.master)];
        slots.into_iter().filter_map(|(slot, tensor)| Some((slot, tensor.as_ref()?)))
    }

    fn fill(&mut self, settings: &OptimizerSettings, precision: Precision, parameter: &Tensor) -> Result<(), LmError> {
        let (first, second) = settings.moments();
        for (slot, needed) in [(&mut self.first, first), (&mut self.second, second)] {
            if needed && slot.is_none() {
                *slot = Some(Tensor::f_zeros(parameter.size(), (Kind::Float, parameter.device()))?);
            }
        }
        if parameter.f_kind()? != Kind::Float && precision == Precision::Masters && self.master.is_none() {
            self.master = Some(parameter.f_detach()?.f_to_kind(Kind::Float)?);
        }
        Ok(())
    }
}

/// 16 random bits for each element of a parameter, determined by seed, step and parameter.
fn draws(seed: u64, steps: u64, parameter: usize, like: &Tensor) -> Result<Tensor, LmError> {
    let words = [seed.to_le_bytes(), steps.to_le_bytes(), (parameter as u64).to_le_bytes()].concat();
    let mut word = [0; 8];
    word.copy_from_slice(&blake3::hash(&words).as_bytes()[..8]);
    tch::manual_seed(i64::from_le_bytes(word));
    Ok(Tensor::f_randint_low(0, 1 << 16, like.size(), (Kind::Int, like.device()))?)
}

/// Quantities that all blocks of an update share.
struct Step {
    settings: OptimizerSettings,
    steps: i32,
    learning_rate: f64,
    gradient_scale: f64,
}

/// A block of a parameter, its gradient and its state, as flat views.
struct Block {
    parameter: Tensor,
    gradient: Tensor,
    first: Option<Tensor>,
    second: Option<Tensor>,
    master: Option<Tensor>,
    draws: Option<Tensor>,
}

impl Step {
    fn update(
        &self,
        parameter: &Tensor,
        gradient: &Tensor,
        state: &State,
        draws: Option<&Tensor>,
    ) -> Result<(), LmError> {
        let elements = parameter.numel() as i64;
        let length = if parameter.device().is_cuda() { elements } else { BLOCK };
        let flat = |tensor: &Tensor| -> Result<Tensor, LmError> { Ok(tensor.f_detach()?.f_view(-1)?) };
        let (parameter, gradient) = (flat(parameter)?, flat(&gradient.f_contiguous()?)?);
        let optional = |tensor: Option<&Tensor>| tensor.map(flat).transpose();
        let (first, second) = (optional(state.first.as_ref())?, optional(state.second.as_ref())?);
        let (master, draws) = (optional(state.master.as_ref())?, optional(draws)?);
        let mut blocks = Vec::new();
        for begin in (0..elements).step_by(length as usize) {
            let part = |tensor: &Tensor| tensor.f_narrow(0, begin, length.min(elements - begin));
            let optional = |tensor: &Option<Tensor>| tensor.as_ref().map(part).transpose();
            blocks.push(Block {
                parameter: part(&parameter)?,
                gradient: part(&gradient)?,
                first: optional(&first)?,
                second: optional(&second)?,
                master: optional(&master)?,
                draws: optional(&draws)?,
            });
        }
        // Gradient tracking is a setting of each thread.
        blocks.into_par_iter().try_for_each(|block| no_grad(|| self.update_block(block)))
    }

    fn update_block(&self, block: Block) -> Result<(), LmError> {
        let Block { mut parameter, gradient, first, second, master, draws } = block;
        match (master, draws) {
            (Some(mut master), _) => {
                self.move_along(&mut master, &gradient, first, second)?;
                parameter.f_copy_(&master)?;
            }
            (None, Some(draws)) => {
                let mut wide = parameter.f_to_kind(Kind::Float)?;
                self.move_along(&mut wide, &gradient, first, second)?;
                // The upper half of a number's bits is the bfloat16 below it in magnitude, and the lower half the
                // distance to that, in units of the distance to the next one.
                let bits = wide.f_view_dtype(Kind::Int)?.f_add_(&draws)?.f_bitwise_and_(-(1_i64 << 16))?;
                parameter.f_copy_(&bits.f_view_dtype(Kind::Float)?)?;
            }
            (None, None) => self.move_along(&mut parameter, &gradient, first, second)?,
        }
        Ok(())
    }

    /// Updates the weights in 32 bits.
    fn move_along(
        &self,
        weights: &mut Tensor,
        gradient: &Tensor,
        first: Option<Tensor>,
        second: Option<Tensor>,
    ) -> Result<(), LmError> {
        let decayed = |weights: &Tensor, weight_decay: f64| -> Result<Tensor, LmError> {
            let mut gradient = gradient.f_mul_scalar(self.gradient_scale)?;
            if weight_decay > 0.0 {
                _ = gradient.f_add_(&weights.f_mul_scalar(weight_decay)?)?;
            }
            Ok(gradient)
        };
        let mean_square = |square: &mut Tensor, gradient: &Tensor, memory: f64| -> Result<(), LmError> {
            _ = square.f_mul_scalar_(memory)?.f_add_(&gradient.f_square()?.f_mul_scalar_(1.0 - memory)?)?;
            Ok(())
        };
        let direction = match (self.settings, first, second) {
            (OptimizerSettings::RmsProp(own), first, Some(mut square)) => {
                let RmsProp { smoothing, epsilon, momentum, weight_decay } = own;
                let mut gradient = decayed(weights, weight_decay)?;
                mean_square(&mut square, &gradient, smoothing)?;
                let step = gradient.f_div_(&square.f_sqrt()?.f_add_scalar_(epsilon)?)?;
                match first {
                    Some(mut buffer) => buffer.f_mul_scalar_(momentum)?.f_add_(&step)?,
                    None => step,
                }
            }
            (OptimizerSettings::AdamW(own), Some(mut mean), Some(mut square)) => {
                let AdamW { beta1, beta2, epsilon, weight_decay } = own;
                let gradient = decayed(weights, 0.0)?;
                _ = weights.f_mul_scalar_(1.0 - self.learning_rate * weight_decay)?;
                _ = mean.f_lerp_(&gradient, 1.0 - beta1)?;
                mean_square(&mut square, &gradient, beta2)?;
                let root_correction = (1.0 - beta2.powi(self.steps)).sqrt();
                let root = square.f_sqrt()?.f_div_scalar_(root_correction)?.f_add_scalar_(epsilon)?;
                mean.f_div(&root)?.f_div_scalar_(1.0 - beta1.powi(self.steps))?
            }
            (OptimizerSettings::Sgd(own), Some(mut buffer), _) => {
                let Sgd { momentum, nesterov, weight_decay } = own;
                let gradient = decayed(weights, weight_decay)?;
                _ = buffer.f_mul_scalar_(momentum)?.f_add_(&gradient)?;
                if nesterov { buffer.f_mul_scalar(momentum)?.f_add_(&gradient)? } else { buffer }
            }
            (OptimizerSettings::Sgd(own), None, _) => decayed(weights, own.weight_decay)?,
            // The state was allocated for these settings.
            (OptimizerSettings::RmsProp(_) | OptimizerSettings::AdamW(_), _, _) => return Ok(()),
        };
        _ = weights.f_sub_(&direction.f_mul_scalar(self.learning_rate)?)?;
        Ok(())
    }
}
