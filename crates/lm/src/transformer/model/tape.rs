//! The record that a forward pass through the layers keeps, and the pull-back of cotangents through it.

use tch::{Kind, Tensor, no_grad, with_grad};

use super::{Layout, Transformer, rope::Angles};
use crate::error::LmError;

/// Amount of intermediate results that a forward pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: there is no pull-back.
    Nothing,
    /// Everything that differentiation needs.
    Activations,
    /// Only the input of each layer; the rest is computed again, layer by layer (activation checkpointing).
    LayerInputs,
}

/// Record of a forward pass: a segment for each layer and one for the last norm.
#[derive(Debug, Default)]
pub struct Tape {
    segments: Vec<Segment>,
}

impl Tape {
    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

/// A part of the forward pass that is differentiated separately, so that only its own gradients are in memory at a
/// time.
#[derive(Debug)]
struct Segment {
    input: Tensor,
    /// Output with libtorch's graph; `None` if it is computed again.
    output: Option<Tensor>,
}

/// Inputs of the layers besides the embeddings.
#[derive(Debug)]
pub struct Places<'a> {
    /// Arrangement of the tokens in rows.
    pub layout: &'a Layout,
    /// Rotary angles of the tokens' positions.
    pub angles: &'a Angles,
    /// Tokens whose hidden states are read, by their places in the concatenated rows.
    pub read: &'a Tensor,
}

impl Transformer {
    /// Runs the embeddings of all tokens through the layers, and returns normed hidden states of the tokens to be read,
    /// [read, hidden_size].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn forward(&self, embeddings: &Tensor, places: &Places<'_>, keep: Keep) -> Result<(Tensor, Tape), LmError> {
        let mut tape = Tape::default();
        let mut x = no_grad(|| self.enter(embeddings, places.layout))?;
        for segment in 0..=self.layers.len() {
            x = match keep {
                Keep::Nothing => no_grad(|| self.segment(segment, &x, places))?,
                Keep::LayerInputs => {
                    let output = no_grad(|| self.segment(segment, &x, places))?;
                    tape.segments.push(Segment { input: x, output: None });
                    output
                }
                Keep::Activations => {
                    let input = leaf(&x)?;
                    let output = with_grad(|| self.segment(segment, &input, places))?;
                    let next = output.f_detach()?;
                    tape.segments.push(Segment { input, output: Some(output) });
                    next
                }
            };
        }
        Ok((x, tape))
    }

    /// Returns the cotangent of the embeddings from that of the hidden states; `None` if the forward pass kept nothing,
    /// or if only adapters are trained. Calls `add(i, g)` with the gradient of tensor i of [`Transformer::trained`],
    /// for each of the layers and for the last norm.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn pull_back(
        &self,
        tape: Tape,
        places: &Places<'_>,
        cotangent: &Tensor,
        add: &mut dyn FnMut(usize, Tensor) -> Result<(), LmError>,
    ) -> Result<Option<Tensor>, LmError> {
        if tape.is_empty() {
            return Ok(None);
        }
        let adapted = self.lora.is_some();
        let mut cotangent = cotangent.shallow_clone();
        for (segment, Segment { input, output }) in tape.segments.into_iter().enumerate().rev() {
            let (input, output) = match output {
                Some(output) => (input, output),
                None => {
                    let input = leaf(&input)?;
                    let output = with_grad(|| self.segment(segment, &input, places))?;
                    (input, output)
                }
            };
            let (trained, before) = match self.layers.get(segment) {
                Some(layer) if adapted => (layer.adapters(), 0),
                Some(layer) => (layer.parameters(), 1),
                None if adapted => (Vec::new(), 0),
                None => (vec![&self.norm.weight], 1),
            };
            let of_layer = if adapted { self.layers[0].adapters() } else { self.layers[0].parameters() };
            let first = before + segment * of_layer.len();
            // With adapters, nothing before the first layer is trained.
            let passes_on = segment > 0 || !adapted;
            let inputs: Vec<_> = passes_on.then_some(&input).into_iter().chain(trained).collect();
            let pulled = with_grad(|| output.f_mul(&cotangent)?.f_sum(Kind::Float))?;
            let mut gradients = Tensor::f_run_backward(&[pulled], &inputs, false, false)?.into_iter();
            if passes_on && let Some(gradient) = gradients.next() {
                cotangent = gradient;
            }
            for (index, gradient) in gradients.enumerate() {
                add(first + index, gradient)?;
            }
        }
        if adapted {
            return Ok(None);
        }
        let (rows, length) = places.layout.shape();
        // Embeddings are scaled on the way in, and so are their cotangents on the way back.
        let flat = cotangent.f_view([(rows * length) as i64, -1])?;
        Ok(Some(no_grad(|| self.scale_embeddings(&flat))?))
    }

    /// Computes a layer or, after the last one, the norm of the tokens to be read.
    fn segment(&self, segment: usize, x: &Tensor, places: &Places<'_>) -> Result<Tensor, LmError> {
        match self.layers.get(segment) {
            Some(_) => self.layer(segment, x, places.angles, places.layout),
            None => self.norm.forward(&x.f_flatten(0, 1)?.f_index_select(0, places.read)?),
        }
    }

    fn enter(&self, embeddings: &Tensor, layout: &Layout) -> Result<Tensor, LmError> {
        let (rows, length) = layout.shape();
        Ok(self.scale_embeddings(embeddings)?.f_view([rows as i64, length as i64, -1])?)
    }
}

fn leaf(x: &Tensor) -> Result<Tensor, LmError> {
    Ok(x.f_detach()?.f_set_requires_grad(true)?)
}
