//! Causal attention over rows of tokens, over sequences packed into one row, and over what was computed before.

use strum::{Display, FromRepr};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::config::ModelConfig;
use crate::error::LmError;

/// How the tokens of a batch lie in its rows, each of which is as long as the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A sequence a row, and padding behind it, which no token of the sequence sees.
    Padded {
        /// Rows.
        rows: usize,
        /// Tokens in a row.
        length: usize,
    },
    /// Sequences of these lengths, one behind the other in one row.
    Packed {
        /// Tokens of each sequence.
        lengths: Vec<usize>,
    },
}

impl Layout {
    /// Rows and tokens in a row.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Padded { rows, length } => (*rows, *length),
            Self::Packed { lengths } => (1, lengths.iter().sum()),
        }
    }

    /// The position of each token of a row in its sequence.
    pub fn positions(&self) -> Vec<i64> {
        match self {
            Self::Padded { length, .. } => (0..*length as i64).collect(),
            Self::Packed { lengths } => lengths.iter().flat_map(|length| 0..*length as i64).collect(),
        }
    }
}

/// Heads of queries, keys and values, each of shape [rows, heads, tokens, head_dim].
#[derive(Debug)]
pub struct Heads {
    /// What looks.
    pub query: Tensor,
    /// What is looked at; one head may serve several of queries.
    pub key: Tensor,
    /// What is seen there.
    pub value: Tensor,
}

impl Heads {
    /// Attention in which each token sees its sequence up to itself, or the `window` last tokens of that.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn attend(&self, layout: &Layout, window: Option<usize>) -> Result<Tensor, LmError> {
        match layout {
            Layout::Padded { length, .. } => self.causal(*length, window),
            Layout::Packed { lengths } => {
                let mut begin = 0;
                let mut parts = Vec::with_capacity(lengths.len());
                for length in lengths {
                    let part = |heads: &Tensor| heads.f_narrow(2, begin, *length as i64);
                    let heads = Self { query: part(&self.query)?, key: part(&self.key)?, value: part(&self.value)? };
                    parts.push(heads.causal(*length, window)?);
                    begin += *length as i64;
                }
                Ok(Tensor::f_cat(&parts, 2)?)
            }
        }
    }

    fn causal(&self, length: usize, window: Option<usize>) -> Result<Tensor, LmError> {
        match window {
            // A mask keeps the engine from its fastest kernels.
            Some(window) if window < length => {
                self.product(Some(&sliding(length, window, self.query.device())?), false)
            }
            _ => self.product(None, length > 1),
        }
    }

    /// Attention to all keys, or to those that `mask` lets see: true where seen, of shape [rows, 1, 1, keys] or, with the tokens of each
    /// of the heads that share keys one behind the other, [rows, 1, heads / kv_heads * tokens, keys].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn behind(&self, mask: Option<&Tensor>) -> Result<Tensor, LmError> {
        let (rows, heads, tokens, head_dim) = self.query.size4()?;
        // Heads that share keys look at them as tokens of one head would, so that no key is repeated for each of them.
        let query = self.query.f_reshape([rows, self.key.size()[1], -1, head_dim])?;
        let together = Self { query, key: self.key.shallow_clone(), value: self.value.shallow_clone() };
        Ok(together.product(mask, false)?.f_reshape([rows, heads, tokens, head_dim])?)
    }

    fn product(&self, mask: Option<&Tensor>, causal: bool) -> Result<Tensor, LmError> {
        let Self { query, key, value } = self;
        let shared = query.size()[1] != key.size()[1];
        Ok(Tensor::f_scaled_dot_product_attention(query, key, value, mask, 0.0, causal, None, shared)?)
    }
}

/// How the engine goes about attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, FromRepr)]
#[strum(serialize_all = "snake_case")]
#[repr(i64)]
pub enum Kernel {
    /// One operation after the other, with every query's weights of every key in memory.
    Math = 0,
    /// In blocks that stay on the chip.
    Flash = 1,
    /// In blocks, in less memory than the first and more time than the second.
    Efficient = 2,
    /// That of cuDNN.
    Cudnn = 3,
}

/// The kernel that the engine takes where a model of this shape is trained on sequences of this length; none that is known here
/// where its number is another.
///
/// # Errors
///
/// [`LmError::Engine`].
pub fn kernel(config: &ModelConfig, kind: Kind, device: Device, length: usize) -> Result<Option<Kernel>, LmError> {
    let heads = |heads: usize| -> Result<Tensor, LmError> {
        let size = [1, heads as i64, length as i64, config.head_dim as i64];
        Ok(Tensor::f_zeros(size, (kind, device))?.f_set_requires_grad(true)?)
    };
    let (query, key) = (heads(config.heads)?, heads(config.kv_heads)?);
    let shared = config.heads != config.kv_heads;
    let choice =
        Tensor::f_internal_fused_sdp_choice(&query, &key, &key, None::<Tensor>, 0.0, length > 1, None, shared)?;
    Ok(Kernel::from_repr(choice))
}

/// True where query i sees key j: i − window < j ≤ i.
fn sliding(length: usize, window: usize, device: Device) -> Result<Tensor, LmError> {
    let length = length as i64;
    let all = Tensor::f_ones([length, length], (Kind::Bool, device))?;
    Ok(all.f_tril(0)?.f_triu(1 - window as i64)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_the_token_itself() {
        let mask = sliding(4, 2, Device::Cpu).unwrap();
        let seen: Vec<_> = (0..4).map(|query| mask.get(query).sum(Kind::Int64).int64_value(&[])).collect();
        assert_eq!(seen, [1, 2, 2, 2]);
        assert_eq!(mask.int64_value(&[3, 1]), 0);
    }
}
