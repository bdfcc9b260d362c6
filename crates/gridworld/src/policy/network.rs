//! A two-layer network over one-hot inputs with a hand-written backward pass.
//!
//! # Formula
//!
//! The encoding of a cell, layer 1 before its activation, is E(s) = W₁ₛ + b₁ with W₁ₛ row s of W₁ (one-hot), or E(s) =
//! W₁ᵣ + W₁ₕ₊ₖ + b₁ for the cell in row r and column k of a lake h cells high (row and column). Logits are z = ReLU(E)
//! W₂ + b₂, and π(a|s) = softmax(z)ₐ. A fused state has encoding (1 − λ) E(s) + λ E(s'). A network with a value head
//! also has V(s) = ReLU(E) · w + c.
//!
//! Backward is the usual chain; layer 1's gradient goes to the rows of W₁ that a state reads, its every other input
//! being zero. States are few and rows short, so plain loops over slices are several times as fast as matrix products.

use std::ops::Range;

use objective::Freeze;
use pulp::{Arch, Simd, WithSimd};
use rand::Rng;
use rand::distr::{Distribution, Uniform};
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::error::GridError;
use crate::world::map::{ACTIONS, Map};
use crate::world::policy_table::TransitionMatrix;

/// Encoding of a cell for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Encoding {
    /// Index of the cell: no two cells share an input.
    OneHot,
    /// Row and column of the cell, which it shares with other cells.
    RowColumn,
}

/// Inputs that represent the cells of a lake, each a row of W₁.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    encoding: Encoding,
    height: usize,
    width: usize,
}

/// Cells whose encodings the network reads, one per state.
#[derive(Clone, Debug, PartialEq)]
pub struct States {
    /// Cells, trajectory after trajectory.
    pub cells: Vec<usize>,
    /// Index in `cells` at which each trajectory begins.
    pub begins: Vec<usize>,
    /// Encodings of anticipated cells that are fused with those of `cells`, if states are fused.
    pub fusion: Option<Fusion>,
}

/// Second half of fused states.
#[derive(Clone, Debug, PartialEq)]
pub struct Fusion {
    /// Anticipated cells, one per state.
    pub cells: Vec<usize>,
    /// Weight λ of the anticipated cells.
    pub lambda: f64,
    /// Encodings through which no gradient passes.
    pub freeze: Freeze,
}

/// Number of hidden units that are computed side by side.
const LANES: usize = 4;

/// Parameters and gradient of the network, each flat: W₁ row by row, b₁, W₂ column by column, b₂, and w and c if it has
/// a value head. So every loop runs over hidden units that lie side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    inputs: Inputs,
    hidden: usize,
    valued: bool,
    /// Parameters of the network.
    pub parameters: Vec<f64>,
    /// Gradient by the parameters.
    pub gradient: Vec<f64>,
}

/// Results of a forward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forward {
    /// Activations ReLU(E), state after state.
    activations: Vec<f64>,
    /// Probabilities π(a|s), one row per state.
    pub policy: TransitionMatrix,
    /// Log-probabilities log π(a|s), nats, one row per state.
    pub log_policy: Vec<[f64; ACTIONS]>,
    /// Values V(s), one per state; empty without a value head.
    pub value: Vec<f64>,
}

impl Forward {
    /// A forward pass of a known policy in these cells, which cannot be pulled back. A probability of 0 is replaced by
    /// the smallest normal number, so that its logarithm is finite.
    pub fn of(policy: &TransitionMatrix, cells: &[usize]) -> Self {
        let policy: TransitionMatrix = cells.iter().map(|&cell| policy[cell]).collect();
        let log_policy = policy.iter().map(|row| row.map(|p| p.max(f64::MIN_POSITIVE).ln())).collect();
        Self { policy, log_policy, ..Self::default() }
    }
}

/// Parameters or gradient, by layer.
struct Layers<'a> {
    encoder: &'a [f64],
    encoder_bias: &'a [f64],
    /// Weights W₂, a row of hidden units for each action.
    head: &'a [f64],
    head_bias: &'a [f64],
    /// Value head's w and c; empty without one.
    value: &'a [f64],
}

/// Mutable parameters or gradient, by layer.
struct LayersMut<'a> {
    encoder: &'a mut [f64],
    encoder_bias: &'a mut [f64],
    head: &'a mut [f64],
    head_bias: &'a mut [f64],
    value: &'a mut [f64],
}

impl Inputs {
    /// Inputs of a map's cells.
    pub fn new(encoding: Encoding, map: &Map) -> Self {
        Self { encoding, height: map.height(), width: map.width() }
    }

    /// Number of inputs.
    pub fn count(&self) -> usize {
        match self.encoding {
            Encoding::OneHot => self.height * self.width,
            Encoding::RowColumn => self.height + self.width,
        }
    }

    /// Inputs that are 1 for a cell.
    pub fn of(&self, cell: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, second) = self.pair(cell);
        std::iter::once(first).chain(second)
    }

    #[inline(always)]
    fn pair(&self, cell: usize) -> (usize, Option<usize>) {
        match self.encoding {
            Encoding::OneHot => (cell, None),
            Encoding::RowColumn => (cell / self.width, Some(self.height + cell % self.width)),
        }
    }
}

impl Network {
    /// A network with every weight and bias uniform in ±1/√fan_in.
    ///
    /// # Errors
    ///
    /// Never: there are as many parameters as the layers have.
    pub fn new(inputs: Inputs, hidden: usize, rng: &mut impl Rng) -> Result<Self, GridError> {
        let fan_in = inputs.count();
        let mut parameters = Vec::with_capacity(Self::count(inputs, hidden));
        for (count, fan_in) in
            [(fan_in * hidden, fan_in), (hidden, fan_in), (hidden * ACTIONS, hidden), (ACTIONS, hidden)]
        {
            parameters.extend(uniform(count, fan_in, rng));
        }
        Self::from_parameters(inputs, hidden, parameters)
    }

    /// A network of given parameters: W₁ row by row, b₁, W₂ row by row, b₂.
    ///
    /// # Errors
    ///
    /// [`GridError::Parameters`] if there are not (inputs + 1) hidden + (hidden + 1) 4 of them.
    pub fn from_parameters(inputs: Inputs, hidden: usize, mut parameters: Vec<f64>) -> Result<Self, GridError> {
        let (expected, given) = (Self::count(inputs, hidden), parameters.len());
        if given != expected {
            return Err(GridError::Parameters { expected, given });
        }
        let head = &mut parameters[(inputs.count() + 1) * hidden..][..hidden * ACTIONS];
        let rows = head.to_vec();
        for (place, slot) in head.iter_mut().enumerate() {
            *slot = rows[place % hidden * ACTIONS + place / hidden];
        }
        let gradient = vec![0.0; parameters.len()];
        Ok(Self { inputs, hidden, valued: false, parameters, gradient })
    }

    /// The same network with a value head, its weights and bias uniform in ±1/√hidden.
    pub fn with_value_head(mut self, rng: &mut impl Rng) -> Self {
        if !self.valued {
            self.parameters.extend(uniform(self.hidden + 1, self.hidden, rng));
            self.gradient.resize(self.parameters.len(), 0.0);
            self.valued = true;
        }
        self
    }

    fn count(inputs: Inputs, hidden: usize) -> usize {
        (inputs.count() + 1) * hidden + (hidden + 1) * ACTIONS
    }

    /// Inputs that represent the cells.
    pub fn inputs(&self) -> Inputs {
        self.inputs
    }

    /// Computes the distribution at every state.
    pub fn forward(&self, states: &States) -> Forward {
        let mut forward = Forward::default();
        self.forward_into(states, &mut forward);
        forward
    }

    /// Computes the distribution at every state into a buffer.
    pub fn forward_into(&self, states: &States, out: &mut Forward) {
        self.logits_into(states, out);
        let Forward { policy, log_policy, .. } = out;
        policy.clear();
        for row in log_policy {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers = row.map(|logit| (logit - most).exp());
            let sum: f64 = powers.iter().sum();
            let log_sum = sum.ln();
            policy.push(powers.map(|power| power / sum));
            *row = row.map(|logit| logit - most - log_sum);
        }
    }

    /// Computes everything but the softmax: logits take the place of log π, and π is empty.
    pub fn logits_into(&self, states: &States, out: &mut Forward) {
        Arch::new().dispatch(Pass { network: self, states, out });
    }

    #[inline(always)]
    fn forward_rows(&self, states: &States, out: &mut Forward) {
        let Layers { value, .. } = self.layers();
        let Forward { activations, log_policy, value: values, .. } = out;
        activations.resize(states.cells.len() * self.hidden, 0.0);
        log_policy.clear();
        values.clear();
        for (index, row) in activations.chunks_exact_mut(self.hidden).enumerate() {
            self.encode(states, index, row);
            log_policy.push(self.logits(row));
            if let Some((bias, weights)) = value.split_last() {
                values.push(
                    bias + weights.iter().zip(&*row).map(|(weight, activation)| weight * activation).sum::<f64>(),
                );
            }
        }
    }

    /// Activations ReLU(E) of a state.
    #[inline(always)]
    fn encode(&self, states: &States, index: usize, row: &mut [f64]) {
        let Layers { encoder, encoder_bias, .. } = self.layers();
        let term = |input: usize, weight: f64| (&encoder[self.encoder_range(input)], weight);
        let (own, own_column) = self.inputs.pair(states.cells[index]);
        match &states.fusion {
            None => match own_column {
                None => activate([term(own, 1.0)], encoder_bias, row),
                Some(column) => activate([term(own, 1.0), term(column, 1.0)], encoder_bias, row),
            },
            Some(Fusion { cells, lambda, .. }) => {
                let (rest, lambda) = (1.0 - lambda, *lambda);
                let (other, other_column) = self.inputs.pair(cells[index]);
                match own_column.zip(other_column) {
                    None => activate([term(own, rest), term(other, lambda)], encoder_bias, row),
                    Some((own_column, other_column)) => {
                        let [first, second] = [term(own, rest), term(own_column, rest)];
                        let [third, fourth] = [term(other, lambda), term(other_column, lambda)];
                        activate([first, second, third, fourth], encoder_bias, row);
                    }
                }
            }
        }
    }

    /// Logits z = ReLU(E) W₂ + b₂, with independent partial sums.
    #[inline(always)]
    fn logits(&self, activations: &[f64]) -> [f64; ACTIONS] {
        let Layers { head, head_bias, .. } = self.layers();
        let rows = [0, 1, 2, 3].map(|action| row(head, self.hidden, action).as_chunks::<LANES>());
        let [(left, _), (down, _), (right, _), (up, _)] = rows;
        let (chunks, rest) = activations.as_chunks::<LANES>();
        let [mut to_left, mut to_down, mut to_right, mut to_up] = [[0.0; LANES]; ACTIONS];
        for ((((activations, left), down), right), up) in chunks.iter().zip(left).zip(down).zip(right).zip(up) {
            multiply_add(&mut to_left, activations, left);
            multiply_add(&mut to_down, activations, down);
            multiply_add(&mut to_right, activations, right);
            multiply_add(&mut to_up, activations, up);
        }
        let mut logits = [0.0; ACTIONS];
        for (action, sums) in [to_left, to_down, to_right, to_up].into_iter().enumerate() {
            let more =
                rest.iter().zip(rows[action].1).fold(sums[0], |sum, (activation, weight)| sum + activation * weight);
            logits[action] = ((more + sums[1]) + sums[2]) + sums[3] + head_bias[action];
        }
        logits
    }

    /// Pulls the derivatives by the logits, which take the place of the policy in `forward`, and by the values back
    /// into the gradient. Empty values mean zeros. The activations are overwritten.
    pub fn backward(&mut self, states: &States, forward: &mut Forward, values: &[f64]) {
        Arch::new().dispatch(PullBack { network: self, states, forward, values });
    }

    #[inline(always)]
    fn backward_rows(&mut self, states: &States, forward: &mut Forward, values: &[f64]) {
        let (inputs, hidden) = (self.inputs, self.hidden);
        let layers = Layers::new(&self.parameters, inputs.count(), hidden);
        let gradient = LayersMut::new(&mut self.gradient, inputs.count(), hidden);
        for (index, (row, logits)) in forward.activations.chunks_exact_mut(hidden).zip(&forward.policy).enumerate() {
            gradient.head_bias.iter_mut().zip(logits).for_each(|(slot, logit)| *slot += logit);
            for (slots, by_logit) in gradient.head.chunks_exact_mut(hidden).zip(logits) {
                scaled_add(slots, *by_logit, row);
            }
            match (values.get(index), layers.value.split_last(), gradient.value.split_last_mut()) {
                (Some(by_value), Some((_, weights)), Some((bias, slots))) => {
                    *bias += by_value;
                    scaled_add(slots, *by_value, row);
                    pull(row, layers.head, logits, |unit| by_value * weights[unit]);
                }
                _ => pull(row, layers.head, logits, |_| 0.0),
            }
            let mut learned = 0.0;
            let mut learn = |cell: usize, weight: f64| {
                for input in inputs.of(cell) {
                    scaled_add(&mut gradient.encoder[input * hidden..(input + 1) * hidden], weight, row);
                }
                // The bias is in both encodings.
                learned += weight;
            };
            match &states.fusion {
                None => learn(states.cells[index], 1.0),
                Some(Fusion { cells, lambda, freeze }) => {
                    // The stop-gradients of IFT, one encoding each.
                    match freeze {
                        Freeze::None | Freeze::Anticipated => learn(states.cells[index], 1.0 - lambda),
                        Freeze::All => {}
                    }
                    match freeze {
                        Freeze::None => learn(cells[index], *lambda),
                        Freeze::Anticipated | Freeze::All => {}
                    }
                }
            }
            scaled_add(gradient.encoder_bias, learned, row);
        }
    }

    /// Transition matrix T(a|s) over all cells.
    pub fn transition_matrix(&self) -> TransitionMatrix {
        self.forward(&States {
            cells: (0..self.inputs.height * self.inputs.width).collect(),
            begins: vec![0],
            fusion: None,
        })
        .policy
    }

    /// Range of an input's row of W₁ among the parameters.
    pub fn encoder_range(&self, input: usize) -> Range<usize> {
        input * self.hidden..(input + 1) * self.hidden
    }

    /// Range of the parameters that every state shares.
    pub fn shared_range(&self) -> Range<usize> {
        self.inputs.count() * self.hidden..self.parameters.len()
    }

    #[inline(always)]
    fn layers(&self) -> Layers<'_> {
        Layers::new(&self.parameters, self.inputs.count(), self.hidden)
    }
}

/// A forward pass, compiled for the processor's vector instructions. Everything that it calls must be inlined, as other
/// functions are compiled for the instructions of every processor.
struct Pass<'a> {
    network: &'a Network,
    states: &'a States,
    out: &'a mut Forward,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.network.forward_rows(self.states, self.out);
    }
}

/// A backward pass, compiled for the processor's vector instructions like [`Pass`].
struct PullBack<'a> {
    network: &'a mut Network,
    states: &'a States,
    forward: &'a mut Forward,
    values: &'a [f64],
}

impl WithSimd for PullBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.network.backward_rows(self.states, self.forward, self.values);
    }
}

impl<'a> Layers<'a> {
    #[inline(always)]
    fn new(parameters: &'a [f64], inputs: usize, hidden: usize) -> Self {
        let (encoder, rest) = parameters.split_at(inputs * hidden);
        let (encoder_bias, rest) = rest.split_at(hidden);
        let (head, rest) = rest.split_at(hidden * ACTIONS);
        let (head_bias, value) = rest.split_at(ACTIONS);
        Self { encoder, encoder_bias, head, head_bias, value }
    }
}

impl<'a> LayersMut<'a> {
    fn new(gradient: &'a mut [f64], inputs: usize, hidden: usize) -> Self {
        let (encoder, rest) = gradient.split_at_mut(inputs * hidden);
        let (encoder_bias, rest) = rest.split_at_mut(hidden);
        let (head, rest) = rest.split_at_mut(hidden * ACTIONS);
        let (head_bias, value) = rest.split_at_mut(ACTIONS);
        Self { encoder, encoder_bias, head, head_bias, value }
    }
}

/// Computes the ReLU of weighted rows and a bias.
#[inline(always)]
fn activate<const TERMS: usize>(terms: [(&[f64], f64); TERMS], bias: &[f64], out: &mut [f64]) {
    for (unit, (slot, bias)) in out.iter_mut().zip(bias).enumerate() {
        let mut sum = 0.0;
        for (row, weight) in &terms {
            sum += weight * row[unit];
        }
        *slot = (sum + bias).max(0.0);
    }
}

/// Replaces the activations of a state by the derivatives of the loss by its encoding. `other` is the part of these
/// that the logits do not contribute.
#[inline(always)]
fn pull(activations: &mut [f64], head: &[f64], logits: &[f64; ACTIONS], other: impl Fn(usize) -> f64) {
    let [left, down, right, up] = [0, 1, 2, 3].map(|action| row(head, activations.len(), action));
    for (unit, activation) in activations.iter_mut().enumerate() {
        let pulled =
            (left[unit] * logits[0] + down[unit] * logits[1]) + (right[unit] * logits[2] + up[unit] * logits[3]);
        // No derivative passes through an inactive unit.
        *activation = if *activation > 0.0 { pulled + other(unit) } else { 0.0 };
    }
}

#[inline(always)]
fn multiply_add(sums: &mut [f64; LANES], a: &[f64; LANES], b: &[f64; LANES]) {
    for lane in 0..LANES {
        sums[lane] += a[lane] * b[lane];
    }
}

/// A row of a matrix.
#[inline(always)]
fn row(matrix: &[f64], columns: usize, row: usize) -> &[f64] {
    &matrix[row * columns..][..columns]
}

#[inline(always)]
fn scaled_add(slots: &mut [f64], scale: f64, row: &[f64]) {
    slots.iter_mut().zip(row).for_each(|(slot, value)| *slot += scale * value);
}

/// Numbers uniform in ±1/√fan_in.
fn uniform(count: usize, fan_in: usize, rng: &mut impl Rng) -> Vec<f64> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    let uniform = Uniform::new_inclusive(-bound, bound);
    // Bounds are finite and in order wherever a layer has an input.
    uniform.map_or_else(|_| vec![0.0; count], |uniform| (0..count).map(|_| uniform.sample(rng)).collect())
}
