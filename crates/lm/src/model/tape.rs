//! What a forward pass through the layers keeps, and how cotangents go back through it.

use tch::{Tensor, no_grad, with_grad};

use super::layer::Layer;
use super::{Layout, Transformer, rope::Angles};
use crate::error::LmError;

/// What a forward pass keeps of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: it is not pulled back.
    Nothing,
    /// All that differentiation needs.
    Activations,
    /// What each layer read; the rest is computed again, a layer at a time (activation checkpointing).
    LayerInputs,
}

/// What a forward pass kept.
#[derive(Debug)]
pub enum Tape {
    /// Nothing.
    Nothing,
    /// The embeddings at the beginning of the engine's graph.
    Graph(Tensor),
    /// What each layer read, and what the last one answered.
    LayerInputs(Vec<Tensor>),
}

/// What the layers know of a batch beside its embeddings.
#[derive(Debug)]
pub struct Places<'a> {
    /// How tokens lie in rows.
    pub layout: &'a Layout,
    /// The angles of their positions.
    pub angles: &'a Angles,
    /// Which tokens' hidden states are asked for, by their places in the rows, one behind the other.
    pub asked: &'a Tensor,
}

impl Transformer {
    /// Normed hidden states of the tokens that are asked for, of shape [asked, hidden_size], from the embeddings of all.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn forward(&self, embeddings: &Tensor, places: &Places<'_>, keep: Keep) -> Result<(Tensor, Tape), LmError> {
        match keep {
            Keep::Nothing => no_grad(|| {
                let mut x = self.enter(embeddings, places.layout)?;
                for layer in 0..self.layers.len() {
                    x = self.layer(layer, &x, places.angles, places.layout)?;
                }
                Ok((self.leave(&x, places.asked)?, Tape::Nothing))
            }),
            Keep::Activations => with_grad(|| {
                let leaf = leaf(embeddings)?;
                let mut x = self.enter(&leaf, places.layout)?;
                for layer in 0..self.layers.len() {
                    x = self.layer(layer, &x, places.angles, places.layout)?;
                }
                Ok((self.leave(&x, places.asked)?, Tape::Graph(leaf)))
            }),
            Keep::LayerInputs => no_grad(|| {
                let mut inputs = Vec::with_capacity(self.layers.len() + 1);
                let mut x = self.enter(embeddings, places.layout)?;
                for layer in 0..self.layers.len() {
                    let next = self.layer(layer, &x, places.angles, places.layout)?;
                    inputs.push(std::mem::replace(&mut x, next));
                }
                let hidden = self.leave(&x, places.asked)?;
                inputs.push(x);
                Ok((hidden, Tape::LayerInputs(inputs)))
            }),
        }
    }

    /// The cotangent of the embeddings, from that of the hidden states. `add(i, g)` is given the gradient of parameter i of
    /// [`super::shapes`], for each parameter of the layers and of the last norm.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn pull_back(
        &self,
        hidden: &Tensor,
        tape: Tape,
        places: &Places<'_>,
        cotangent: &Tensor,
        add: &mut dyn FnMut(usize, Tensor) -> Result<(), LmError>,
    ) -> Result<Option<Tensor>, LmError> {
        let first = |layer: usize| 1 + layer * self.layers[0].parameters().len();
        let norm = first(self.layers.len());
        match tape {
            Tape::Nothing => Ok(None),
            Tape::Graph(leaf) => {
                let mut inputs = vec![&leaf];
                inputs.extend(self.layers.iter().flat_map(Layer::parameters));
                inputs.push(&self.norm.weight);
                let mut gradients = gradients(hidden, cotangent, &inputs)?.into_iter();
                let embeddings = gradients.next();
                for (index, gradient) in gradients.enumerate() {
                    add(1 + index, gradient)?;
                }
                Ok(embeddings)
            }
            Tape::LayerInputs(mut inputs) => {
                let mut cotangent = cotangent.shallow_clone();
                if let Some(last) = inputs.pop() {
                    let input = leaf(&last)?;
                    let output = with_grad(|| self.leave(&input, places.asked))?;
                    for (index, gradient) in
                        gradients(&output, &cotangent, &[&input, &self.norm.weight])?.into_iter().enumerate()
                    {
                        match index {
                            0 => cotangent = gradient,
                            _ => add(norm, gradient)?,
                        }
                    }
                }
                for layer in (0..self.layers.len()).rev() {
                    let Some(input) = inputs.pop() else { return Ok(None) };
                    let input = leaf(&input)?;
                    let output = with_grad(|| self.layer(layer, &input, places.angles, places.layout))?;
                    let mut of = vec![&input];
                    of.extend(self.layers[layer].parameters());
                    for (index, gradient) in gradients(&output, &cotangent, &of)?.into_iter().enumerate() {
                        match index {
                            0 => cotangent = gradient,
                            _ => add(first(layer) + index - 1, gradient)?,
                        }
                    }
                }
                // Before the first layer embeddings are scaled, as they are seen as rows.
                let (rows, length) = places.layout.shape();
                let flat = cotangent.f_view([(rows * length) as i64, -1])?;
                Ok(Some(self.scale_embeddings(&flat)?))
            }
        }
    }

    fn enter(&self, embeddings: &Tensor, layout: &Layout) -> Result<Tensor, LmError> {
        let (rows, length) = layout.shape();
        Ok(self.scale_embeddings(embeddings)?.f_view([rows as i64, length as i64, -1])?)
    }

    fn leave(&self, x: &Tensor, asked: &Tensor) -> Result<Tensor, LmError> {
        self.norm.forward(&x.f_flatten(0, 1)?.f_index_select(0, asked)?)
    }
}

fn leaf(x: &Tensor) -> Result<Tensor, LmError> {
    Ok(x.f_detach()?.f_set_requires_grad(true)?)
}

/// The gradients of Σ output · cotangent, which is what the cotangent pulled back is.
fn gradients(output: &Tensor, cotangent: &Tensor, of: &[&Tensor]) -> Result<Vec<Tensor>, LmError> {
    let pulled = with_grad(|| output.f_mul(&cotangent.f_detach()?)?.f_sum(tch::Kind::Float))?;
    Ok(Tensor::f_run_backward(&[pulled], of, false, false)?)
}
