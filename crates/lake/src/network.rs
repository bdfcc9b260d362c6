//! A two-layer network over one-hot cells with a hand-written backward pass.
//!
//! # Formula
//!
//! E(s) = W₁ₛ + b₁, with W₁ₛ row s of W₁, is the encoding of a cell (layer 1 before its activation), logits z = ReLU(E) W₂ + b₂,
//! π(a|s) = softmax(z)ₐ. A fused state has encoding (1 − λ) E(s) + λ E(s'). A network with a value head also has
//! V(s) = ReLU(E) · w + c.
//!
//! Backward is the usual chain; layer 1's gradient goes to the rows of the cells that a state reads, a one-hot input's every
//! other row being zero.

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, ShapeError};
use ndarray_rand::RandomExt;
use ndarray_rand::rand_distr::Uniform;
use objective::Freeze;
use rand::Rng;

use crate::map::ACTIONS;
use crate::solver::TransitionMatrix;

/// Cells whose encodings the network reads, one state each.
#[derive(Clone, Debug, PartialEq)]
pub struct States {
    /// The cells, trajectory after trajectory.
    pub cells: Vec<usize>,
    /// Where in `cells` each trajectory begins.
    pub begins: Vec<usize>,
    /// What the encodings are fused with, if anything.
    pub fusion: Option<Fusion>,
}

/// The second half of fused states.
#[derive(Clone, Debug, PartialEq)]
pub struct Fusion {
    /// The anticipated cells, one a state.
    pub cells: Vec<usize>,
    /// Their weight λ.
    pub lambda: f64,
    /// Which encodings pass no gradient.
    pub freeze: Freeze,
}

/// Parameters and gradient of the network, each flat: W₁ row by row, b₁, W₂ row by row, b₂, and w and c if it has a value head.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    hidden: usize,
    cells: usize,
    valued: bool,
    /// The parameters.
    pub parameters: Vec<f64>,
    /// The gradient.
    pub gradient: Vec<f64>,
}

/// What a forward pass keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// ReLU(E), one row a state.
    activations: Array2<f64>,
    /// log π(a|s), nats, one row a state.
    pub log_policy: Array2<f64>,
    /// V(s), one a state; empty without a value head.
    pub value: Vec<f64>,
}

struct Layers<'a> {
    encoder: ArrayView2<'a, f64>,
    encoder_bias: ArrayView1<'a, f64>,
    head: ArrayView2<'a, f64>,
    head_bias: ArrayView1<'a, f64>,
    value: Option<(ArrayView1<'a, f64>, f64)>,
}

struct LayersMut<'a> {
    encoder: ArrayViewMut2<'a, f64>,
    encoder_bias: ArrayViewMut1<'a, f64>,
    head: ArrayViewMut2<'a, f64>,
    head_bias: ArrayViewMut1<'a, f64>,
    value: Option<(ArrayViewMut1<'a, f64>, &'a mut f64)>,
}

impl Network {
    /// A network with every weight and bias uniform in ±1/√fan_in.
    ///
    /// # Errors
    ///
    /// Never: the shapes agree.
    pub fn new(cells: usize, hidden: usize, rng: &mut impl Rng) -> Result<Self, ShapeError> {
        let mut parameters = Vec::with_capacity(Self::count(cells, hidden));
        for (rows, columns, fan_in) in
            [(cells, hidden, cells), (1, hidden, cells), (hidden, ACTIONS, hidden), (1, ACTIONS, hidden)]
        {
            parameters.extend(uniform((rows, columns), fan_in, rng)?);
        }
        Self::from_parameters(cells, hidden, parameters)
    }

    /// A network of given parameters: W₁ row by row, b₁, W₂ row by row, b₂.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if there are not (cells + 1) hidden + (hidden + 1) 4 of them.
    pub fn from_parameters(cells: usize, hidden: usize, parameters: Vec<f64>) -> Result<Self, ShapeError> {
        if parameters.len() != Self::count(cells, hidden) {
            return Err(ShapeError::from_kind(ndarray::ErrorKind::IncompatibleShape));
        }
        let gradient = vec![0.0; parameters.len()];
        Ok(Self { hidden, cells, valued: false, parameters, gradient })
    }

    /// The same network with a value head, its weights and bias uniform in ±1/√hidden.
    ///
    /// # Errors
    ///
    /// Never: the bound is positive.
    pub fn with_value_head(mut self, rng: &mut impl Rng) -> Result<Self, ShapeError> {
        if !self.valued {
            self.parameters.extend(uniform((1, self.hidden + 1), self.hidden, rng)?);
            self.gradient.resize(self.parameters.len(), 0.0);
            self.valued = true;
        }
        Ok(self)
    }

    fn count(cells: usize, hidden: usize) -> usize {
        (cells + 1) * hidden + (hidden + 1) * ACTIONS
    }

    /// The distribution at every state.
    ///
    /// # Errors
    ///
    /// Never: the shapes agree.
    pub fn forward(&self, states: &States) -> Result<Forward, ShapeError> {
        let layers = self.layers()?;
        let mut activations = Array2::zeros((states.cells.len(), self.hidden));
        for (index, mut row) in activations.axis_iter_mut(Axis(0)).enumerate() {
            row.assign(&layers.encoder.row(states.cells[index]));
            if let Some(Fusion { cells, lambda, .. }) = &states.fusion {
                let anticipated = layers.encoder.row(cells[index]);
                row.zip_mut_with(&anticipated, |own, other| *own = (1.0 - lambda) * *own + lambda * other);
            }
            row.zip_mut_with(&layers.encoder_bias, |own, bias| *own = (*own + bias).max(0.0));
        }
        let mut log_policy = activations.dot(&layers.head);
        log_policy += &layers.head_bias;
        for mut row in log_policy.axis_iter_mut(Axis(0)) {
            let most = row.fold(f64::NEG_INFINITY, |most, logit| most.max(*logit));
            row -= most;
            let log_sum = row.fold(0.0, |sum, logit| sum + logit.exp()).ln();
            row -= log_sum;
        }
        let value = layers.value.map_or_else(Vec::new, |(weights, bias)| (activations.dot(&weights) + bias).to_vec());
        Ok(Forward { activations, log_policy, value })
    }

    /// Adds to the gradient what the derivatives by the logits, one row a state, and by the values pull back. No values are
    /// all zeros.
    ///
    /// # Errors
    ///
    /// Never: the shapes agree.
    pub fn backward(
        &mut self,
        states: &States,
        forward: &Forward,
        logits: &Array2<f64>,
        values: &[f64],
    ) -> Result<(), ShapeError> {
        let layers = self.layers()?;
        let mut encodings = logits.dot(&layers.head.t());
        if let Some((weights, _)) = layers.value {
            for (mut row, value) in encodings.axis_iter_mut(Axis(0)).zip(values) {
                row.scaled_add(*value, &weights);
            }
        }
        encodings.zip_mut_with(&forward.activations, |gradient, activation| {
            if *activation <= 0.0 {
                *gradient = 0.0;
            }
        });

        let mut gradient = self.gradient_layers()?;
        gradient.head += &forward.activations.t().dot(logits);
        gradient.head_bias += &logits.sum_axis(Axis(0));
        if let Some((mut weights, bias)) = gradient.value {
            for (row, value) in forward.activations.axis_iter(Axis(0)).zip(values) {
                weights.scaled_add(*value, &row);
                *bias += value;
            }
        }
        for (index, row) in encodings.axis_iter(Axis(0)).enumerate() {
            let mut learn = |cell: usize, weight: f64| {
                gradient.encoder.row_mut(cell).scaled_add(weight, &row);
                gradient.encoder_bias.scaled_add(weight, &row);
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
        }
        Ok(())
    }

    /// T(a|s) over all cells.
    ///
    /// # Errors
    ///
    /// Never: the shapes agree.
    pub fn transition_matrix(&self) -> Result<TransitionMatrix, ShapeError> {
        let states = States { cells: (0..self.cells).collect(), begins: vec![0], fusion: None };
        let log_policy = self.forward(&states)?.log_policy;
        let row = |row: ArrayView1<'_, f64>| std::array::from_fn(|action| row[action].exp());
        Ok(log_policy.axis_iter(Axis(0)).map(row).collect())
    }

    fn layers(&self) -> Result<Layers<'_>, ShapeError> {
        let (encoder, rest) = self.parameters.split_at(self.cells * self.hidden);
        let (encoder_bias, rest) = rest.split_at(self.hidden);
        let (head, rest) = rest.split_at(self.hidden * ACTIONS);
        let (head_bias, rest) = rest.split_at(ACTIONS);
        Ok(Layers {
            encoder: ArrayView2::from_shape((self.cells, self.hidden), encoder)?,
            encoder_bias: encoder_bias.into(),
            head: ArrayView2::from_shape((self.hidden, ACTIONS), head)?,
            head_bias: head_bias.into(),
            value: rest.split_last().map(|(bias, weights)| (weights.into(), *bias)),
        })
    }

    fn gradient_layers(&mut self) -> Result<LayersMut<'_>, ShapeError> {
        let (encoder, rest) = self.gradient.split_at_mut(self.cells * self.hidden);
        let (encoder_bias, rest) = rest.split_at_mut(self.hidden);
        let (head, rest) = rest.split_at_mut(self.hidden * ACTIONS);
        let (head_bias, rest) = rest.split_at_mut(ACTIONS);
        Ok(LayersMut {
            encoder: ArrayViewMut2::from_shape((self.cells, self.hidden), encoder)?,
            encoder_bias: encoder_bias.into(),
            head: ArrayViewMut2::from_shape((self.hidden, ACTIONS), head)?,
            head_bias: head_bias.into(),
            value: rest.split_last_mut().map(|(bias, weights)| (weights.into(), bias)),
        })
    }
}

/// A matrix uniform in ±1/√fan_in.
fn uniform(shape: (usize, usize), fan_in: usize, rng: &mut impl Rng) -> Result<Array2<f64>, ShapeError> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    match Uniform::new_inclusive(-bound, bound) {
        Ok(uniform) => Ok(Array2::random_using(shape, uniform, rng)),
        Err(_) => Err(ShapeError::from_kind(ndarray::ErrorKind::Unsupported)),
    }
}
