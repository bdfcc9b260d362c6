//! A language model as the policy that every objective trains.

use std::rc::Rc;

use enumset::EnumSet;
use objective::{Freeze, Statistic, TokenStatistics};
use tch::{Device, Kind, Tensor, no_grad};
use training::{Frozen, Policy, Ranks, agree};

use crate::error::LmError;
use crate::train::optimizer::Optimizer;
use crate::train::ranks::Processes;
use crate::transformer::batch::States;
use crate::transformer::head::{Head, Kept};
use crate::transformer::model::{Shape, Tape, Transformer, tape::Keep};

/// A model with the gradient of its trained parameters: those of its adapters, or all parameters of a model without
/// adapters.
#[derive(Debug)]
pub struct LmPolicy {
    model: Transformer,
    /// Gradients in 32 bits whatever the type of the parameters, so that the sum over micro-batches does not depend on
    /// the split; `None` before the first pull-back.
    gradients: Vec<Option<Tensor>>,
    keep: Keep,
    /// Processes of the run, if there are several.
    processes: Option<Rc<Processes>>,
}

/// A forward pass: hidden states of the tokens before each response token, and the output weights.
#[derive(Debug)]
pub struct Forward {
    hidden: Tensor,
    weights: Tensor,
    tape: Tape,
    kept: Kept,
}

impl Forward {
    /// A forward pass from known hidden states, which cannot be pulled back.
    pub fn of(hidden: Tensor, weights: &Tensor) -> Self {
        Self { hidden, weights: weights.shallow_clone(), tape: Tape::default(), kept: Kept::default() }
    }

    /// Hidden states, [response tokens, hidden_size].
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }

    /// Head that computes statistics.
    pub fn head(&self) -> Head<'_> {
        // Without a pull-back there is nothing to keep.
        let kept = (!self.tape.is_empty()).then_some(&self.kept);
        Head { hidden: &self.hidden, weights: &self.weights, kept }
    }
}

impl LmPolicy {
    /// A trainable policy. `keep` is the amount of intermediate results that its forward passes keep for the pull-back.
    pub fn trained(model: Transformer, keep: Keep) -> Self {
        if keep != Keep::Nothing {
            model.trained().into_iter().for_each(|(_, parameter)| {
                // The returned tensor is the same one.
                let _same = parameter.set_requires_grad(true);
            });
        }
        let gradients = model.trained().iter().map(|_| None).collect();
        Self { model, gradients, keep, processes: None }
    }

    /// A frozen policy.
    pub fn frozen(model: Transformer) -> Self {
        Self::trained(model, Keep::Nothing)
    }

    /// Makes this policy one of several processes that take each step together.
    pub fn among(self, processes: Option<Rc<Processes>>) -> Self {
        Self { processes, ..self }
    }

    /// Changes the amount of intermediate results that forward passes keep.
    pub fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// A frozen policy on the same weights, which follows their changes.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn view(&self) -> Result<Self, LmError> {
        Ok(Self::frozen(self.model.view()?).among(self.processes.clone()))
    }

    /// A frozen copy of the policy.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn copy(&self) -> Result<Self, LmError> {
        Ok(Self::frozen(self.model.copy()?))
    }

    /// A frozen policy on the same weights without the adapters.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn base(&self) -> Result<Self, LmError> {
        Ok(Self::frozen(self.model.base()?))
    }

    /// Model of the policy.
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// Trained parameters with their names, in order.
    pub fn parameters(&self) -> Vec<(Shape, &Tensor)> {
        self.model.trained()
    }

    /// Gradient of each parameter, in the order of [`parameters`](Self::parameters); `None` before the first pull-back.
    pub fn gradients(&self) -> &[Option<Tensor>] {
        &self.gradients
    }

    /// Returns the gradient in a slot, and allocates it if necessary.
    fn gradient<'a>(slot: &'a mut Option<Tensor>, parameter: &Tensor) -> Result<&'a mut Tensor, LmError> {
        let gradient = match slot.take() {
            Some(gradient) => gradient,
            None => Tensor::f_zeros(parameter.size(), (Kind::Float, parameter.device()))?,
        };
        Ok(slot.insert(gradient))
    }
}

/// Calls a function with the heads of the forward passes.
fn with_heads<T>(frozen: Frozen<'_, Forward>, function: impl FnOnce(Frozen<'_, Head<'_>>) -> T) -> T {
    let reference = frozen.reference.map(Forward::head);
    let teacher = frozen.teacher.map(|(forward, divergence)| (forward.head(), divergence));
    let teacher = teacher.as_ref().map(|(head, divergence)| (head, *divergence));
    function(Frozen { reference: reference.as_ref(), teacher })
}

impl Policy for LmPolicy {
    type States = States;
    type Forward = Forward;
    type Optimizer = Optimizer;
    type Error = LmError;

    fn forward(&self, states: &States) -> Result<Forward, LmError> {
        let embeddings = states.embeddings(&self.model)?;
        let (hidden, tape) = self.model.forward(&embeddings, &states.places(), self.keep)?;
        Ok(Forward { hidden, weights: self.model.head().shallow_clone(), tape, kept: Kept::default() })
    }

    fn anticipate(&self, states: &States, lambda: f64, freeze: Freeze) -> Result<States, LmError> {
        let embeddings = states.embeddings(&self.model)?;
        let (hidden, _) = self.model.forward(&embeddings, &states.places(), Keep::Nothing)?;
        let greedy = Head { hidden: &hidden, weights: self.model.head(), kept: None }.greedy()?;
        states.anticipated(&greedy, lambda, freeze)
    }

    fn statistics(
        &self,
        forward: &Forward,
        frozen: Frozen<'_, Forward>,
        tokens: &[usize],
        wanted: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), LmError> {
        with_heads(frozen, |frozen| forward.head().statistics(frozen, tokens, wanted, out))
    }

    fn pull_back(
        &mut self,
        states: &States,
        forward: Forward,
        frozen: Frozen<'_, Forward>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
    ) -> Result<(), LmError> {
        let Self { model, gradients, .. } = self;
        let parameters = model.parameters();
        let head = if model.config().tied_embeddings { 0 } else { parameters.len() - 1 };
        let cotangent = {
            let gradient = match model.lora() {
                Some(_) => None,
                None => Some(Self::gradient(&mut gradients[head], parameters[head])?),
            };
            with_heads(frozen, |frozen| forward.head().pull_back(frozen, tokens, cotangents, gradient))?
        };
        let tape = forward.tape;
        let mut add = |index: usize, gradient: Tensor| -> Result<(), LmError> {
            let gradient = gradient.f_to_kind(Kind::Float)?;
            match &mut gradients[index] {
                Some(sum) => _ = no_grad(|| sum.f_add_(&gradient))?,
                slot => *slot = Some(gradient),
            }
            Ok(())
        };
        let embeddings = model.pull_back(tape, &states.places(), &cotangent, &mut add)?;
        if let Some(cotangent) = embeddings {
            let gradient = Self::gradient(&mut gradients[0], parameters[0])?;
            no_grad(|| states.pull_back_embeddings(&cotangent, gradient))?;
        }
        Ok(())
    }

    fn ranks(&self) -> Option<&dyn Ranks<LmError>> {
        self.processes.as_deref().map(|processes| processes as &dyn Ranks<LmError>)
    }

    fn sum_gradient(&mut self) -> Result<(), LmError> {
        let Some(processes) = &self.processes else { return Ok(()) };
        // A parameter without a gradient in every process stays without one.
        let own: Vec<_> = self.gradients.iter().map(Option::is_some).collect();
        let all: Vec<Vec<bool>> = agree(self.ranks(), Ok::<_, LmError>(own))?;
        let somewhere = |index| all.iter().any(|given| given.get(index) == Some(&true));
        let fill = |(index, (slot, (_, parameter))): (usize, (&mut Option<Tensor>, (Shape, &Tensor)))| {
            if somewhere(index) {
                let gradient = Self::gradient(slot, parameter)?;
                *gradient = gradient.f_contiguous()?;
            }
            Ok(())
        };
        let filled: Result<(), LmError> =
            self.gradients.iter_mut().zip(self.model.trained()).enumerate().try_for_each(fill);
        // All processes must agree before the sum, as one that failed to allocate memory would not take part in it.
        agree(self.ranks(), filled)?;
        processes.sum(&self.gradients.iter().flatten().collect::<Vec<_>>())
    }

    fn clear_gradient(&mut self) {
        self.gradients.fill_with(|| None);
    }

    fn gradient_norm(&self) -> Result<f64, LmError> {
        no_grad(|| {
            let norms: Vec<_> =
                self.gradients.iter().flatten().map(|gradient| gradient.f_norm()).collect::<Result<_, _>>()?;
            if norms.is_empty() {
                return Ok(0.0);
            }
            let squares = Tensor::f_stack(&norms, 0)?.f_to_kind(Kind::Double)?.f_square()?;
            Ok(squares.f_sum(Kind::Double)?.f_sqrt()?.f_to_device(Device::Cpu)?.f_double_value(&[])?)
        })
    }

    fn update(&mut self, optimizer: &mut Optimizer, learning_rate: f64, gradient_scale: f64) -> Result<(), LmError> {
        let trained: Vec<_> = self.model.trained().into_iter().map(|(_, tensor)| tensor).collect();
        optimizer.update(&trained, &self.gradients, learning_rate, gradient_scale)
    }
}
