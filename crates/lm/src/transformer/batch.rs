//! Sequences as tensors: the batches that a policy reads.

use std::rc::Rc;

use objective::Freeze;
use strum::{Display, EnumString, VariantNames};
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::transfer::send;
use crate::transformer::model::rope::Angles;
use crate::transformer::model::tape::Places;
use crate::transformer::model::{Layout, Transformer};

/// A prompt and a response, both non-empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// Tokens of the prompt.
    pub prompt: &'a [u32],
    /// Tokens of the response, which are scored or learned.
    pub response: &'a [u32],
}

/// Arrangement of sequences in a batch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Packing {
    /// One sequence per row, with padding after it.
    Padded,
    /// All sequences in one row without padding; none attends to another.
    Packed,
}

/// Encoded states of a batch: for each response token, the state before it.
#[derive(Debug)]
pub struct States {
    sequences: Rc<Sequences>,
    anticipated: Option<Anticipated>,
}

/// The part of a batch that does not change when states are anticipated.
#[derive(Debug)]
struct Sequences {
    layout: Layout,
    angles: Angles,
    /// Token ids, row after row.
    tokens: Tensor,
    /// For each response token, the place of the previous token, whose hidden state predicts it.
    predicting: Tensor,
    /// Places of the response tokens that are inputs, which are all but the last of each response.
    read: Tensor,
    /// For each response token that is an input, its index among all response tokens.
    indices: Tensor,
}

/// Predicted tokens whose embeddings are fused with those of the response.
#[derive(Debug)]
struct Anticipated {
    /// Predicted tokens, one for each response token that is an input.
    tokens: Tensor,
    lambda: f64,
    freeze: Freeze,
}

impl States {
    /// Builds the states of sequences on the model's device. A response's last token is not an input, and is left out.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn new(model: &Transformer, sequences: &[Sequence<'_>], packing: Packing) -> Result<Self, LmError> {
        let lengths: Vec<usize> =
            sequences.iter().map(|sequence| sequence.prompt.len() + sequence.response.len() - 1).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let layout = match packing {
            Packing::Padded => Layout::Padded { rows: sequences.len(), length: longest },
            Packing::Packed => Layout::Packed { lengths: lengths.clone() },
        };
        let (rows, length) = layout.shape();
        let mut tokens = Vec::with_capacity(rows * length);
        let (mut predicting, mut read, mut indices) = (Vec::new(), Vec::new(), Vec::new());
        for (Sequence { prompt, response }, own) in sequences.iter().zip(lengths) {
            let begin = tokens.len() + prompt.len() - 1;
            for place in begin..begin + response.len() {
                if place > begin {
                    read.push(place as i64);
                    // The token at this place was taken in the state of the place before it.
                    indices.push(predicting.len() as i64 - 1);
                }
                predicting.push(place as i64);
            }
            tokens.extend(prompt.iter().chain(*response).take(own).map(|token| i64::from(*token)));
            if packing == Packing::Padded {
                // Any token serves as padding, as no token of a sequence attends to it.
                tokens.resize(tokens.len() + longest - own, 0);
            }
        }
        let device = model.device();
        let tensor = |values: &[i64]| send(values, Kind::Int64, device);
        let sequences = Sequences {
            angles: model.angles(&layout.positions())?,
            tokens: tensor(&tokens)?,
            predicting: tensor(&predicting)?,
            read: tensor(&read)?,
            indices: tensor(&indices)?,
            layout,
        };
        Ok(Self { sequences: Rc::new(sequences), anticipated: None })
    }

    /// Layout of the tokens, and the places whose hidden states are read.
    pub fn places(&self) -> Places<'_> {
        let Sequences { layout, angles, predicting, .. } = &*self.sequences;
        Places { layout, angles, read: predicting }
    }

    /// Fuses the states with predictions: `greedy` has the most probable token in each state.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn anticipated(&self, greedy: &Tensor, lambda: f64, freeze: Freeze) -> Result<Self, LmError> {
        let tokens = greedy.f_index_select(0, &self.sequences.indices)?;
        let anticipated = Anticipated { tokens, lambda, freeze };
        Ok(Self { sequences: Rc::clone(&self.sequences), anticipated: Some(anticipated) })
    }

    /// Input embeddings of the layers, of shape [tokens, hidden_size]: (1 − λ) E(token) + λ E(prediction) for response
    /// tokens if states are anticipated, E(token) otherwise.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn embeddings(&self, model: &Transformer) -> Result<Tensor, LmError> {
        let Sequences { tokens, read, .. } = &*self.sequences;
        let mut embeddings = model.embed(tokens)?;
        if let Some(Anticipated { tokens: predicted, lambda, .. }) = &self.anticipated {
            let own = embeddings.f_index_select(0, read)?;
            let fused = own.f_lerp(&model.embed(predicted)?, *lambda)?;
            _ = embeddings.f_index_copy_(0, read, &fused)?;
        }
        Ok(embeddings)
    }

    /// Adds the gradient of the embedding table, from the cotangents of the embeddings, to `gradient`. Frozen
    /// embeddings pass no gradient.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn pull_back_embeddings(&self, cotangent: &Tensor, gradient: &mut Tensor) -> Result<(), LmError> {
        let Sequences { tokens, read, .. } = &*self.sequences;
        let mut add = |tokens: &Tensor, rows: &Tensor| -> Result<(), LmError> {
            _ = gradient.f_index_put_(&[Some(tokens)], &rows.f_to_kind(gradient.f_kind()?)?, true)?;
            Ok(())
        };
        let Some(Anticipated { tokens: predicted, lambda, freeze }) = &self.anticipated else {
            return add(tokens, cotangent);
        };
        if *freeze == Freeze::All {
            return Ok(());
        }
        let fused = cotangent.f_index_select(0, read)?;
        let own = cotangent.f_index_copy(0, read, &fused.f_mul_scalar(1.0 - lambda)?)?;
        add(tokens, &own)?;
        match freeze {
            Freeze::None => add(predicted, &fused.f_mul_scalar(*lambda)?),
            Freeze::Anticipated | Freeze::All => Ok(()),
        }
    }
}
