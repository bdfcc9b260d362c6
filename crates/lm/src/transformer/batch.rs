//! Sequences as tensors: what a policy reads at once.

use std::rc::Rc;

use objective::Freeze;
use strum::{Display, EnumString, VariantNames};
use tch::{Kind, Tensor};

use crate::device::send;
use crate::error::LmError;
use crate::transformer::model::rope::Angles;
use crate::transformer::model::tape::Places;
use crate::transformer::model::{Layout, Transformer};

/// A prompt and a response, neither of them empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// What comes before.
    pub prompt: &'a [u32],
    /// What is scored or learnt.
    pub response: &'a [u32],
}

/// How sequences lie in a batch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Packing {
    /// Each in a row of its own, with padding behind it.
    Padded,
    /// One behind the other in one row, without padding; none sees another.
    Packed,
}

/// Encoded states of a batch: for each response token the state that it is taken in.
#[derive(Debug)]
pub struct States {
    sequences: Rc<Sequences>,
    anticipated: Option<Anticipated>,
}

/// What does not change when states are anticipated.
#[derive(Debug)]
struct Sequences {
    layout: Layout,
    angles: Angles,
    /// Token ids, row behind row.
    tokens: Tensor,
    /// For each response token the place of the token before it, whose hidden state predicts it.
    predicting: Tensor,
    /// Places of the response tokens that are read, so not the last of a response.
    read: Tensor,
    /// For each of these its index among all response tokens.
    indices: Tensor,
}

/// Predicted tokens that the embeddings are fused with.
#[derive(Debug)]
struct Anticipated {
    /// One for each place that is read.
    tokens: Tensor,
    lambda: f64,
    freeze: Freeze,
}

impl States {
    /// The states of sequences, on the model's device. A response's last token is nobody's state and is left out.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
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
                    // The state in which the token at this place was taken is the one before.
                    indices.push(predicting.len() as i64 - 1);
                }
                predicting.push(place as i64);
            }
            tokens.extend(prompt.iter().chain(*response).take(own).map(|token| i64::from(*token)));
            if packing == Packing::Padded {
                // Any token will do: what comes behind a sequence is not seen from it.
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

    /// Where tokens are, and whose hidden states are asked for.
    pub fn places(&self) -> Places<'_> {
        let Sequences { layout, angles, predicting, .. } = &*self.sequences;
        Places { layout, angles, asked: predicting }
    }

    /// The states fused with predictions: `greedy` has the most probable token in each state.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn anticipated(&self, greedy: &Tensor, lambda: f64, freeze: Freeze) -> Result<Self, LmError> {
        let tokens = greedy.f_index_select(0, &self.sequences.indices)?;
        let anticipated = Anticipated { tokens, lambda, freeze };
        Ok(Self { sequences: Rc::clone(&self.sequences), anticipated: Some(anticipated) })
    }

    /// What the layers read of each token, of shape [tokens, hidden_size]: (1 − λ) E(token) + λ E(prediction) where a response
    /// token is read and states are anticipated, E(token) elsewhere.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
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

    /// Adds to the embedding table's gradient what the cotangents of the embeddings say of its rows, but of those that pass no
    /// gradient.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
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
