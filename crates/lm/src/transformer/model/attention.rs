//! Causal attention over rows of tokens, over sequences packed into one row, and over cached keys and values.

use strum::{Display, FromRepr};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::config::ModelConfig;
use crate::error::LmError;

/// Arrangement of a batch's tokens in rows of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One sequence per row with padding after it, to which no token of the sequence attends.
    Padded {
        /// Number of rows.
        rows: usize,
        /// Number of tokens in a row.
        length: usize,
    },
    /// All sequences in one row, of these lengths.
    Packed {
        /// Number of tokens of each sequence.
        lengths: Vec<usize>,
    },
}

impl Layout {
    /// Number of rows, and of tokens in a row.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Padded { rows, length } => (*rows, *length),
            Self::Packed { lengths } => (1, lengths.iter().sum()),
        }
    }

    /// Position of each token of a row in its sequence.
    pub fn positions(&self) -> Vec<i64> {
        match self {
            Self::Padded { length, .. } => (0..*length as i64).collect(),
            Self::Packed { lengths } => lengths.iter().flat_map(|length| 0..*length as i64).collect(),
        }
    }
}

/// Heads of queries, keys and values, [rows, heads, tokens, head_dim] each.
#[derive(Debug)]
pub struct Heads {
    /// Queries, [rows, heads, tokens, head_dim].
    pub query: Tensor,
    /// Keys, [rows, kv_heads, tokens, head_dim]; one head may serve several query heads.
    pub key: Tensor,
    /// Values, [rows, kv_heads, tokens, head_dim].
    pub value: Tensor,
}

impl Heads {
    /// Causal attention: each token attends to the tokens of its sequence up to itself, or to the last `window` of
    /// them.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
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
            // With a mask, libtorch cannot use its fastest kernels.
            Some(window) if window < length => {
                self.product(Some(&sliding(length, window, self.query.device())?), false)
            }
            _ => self.product(None, length > 1),
        }
    }

    /// Attention to all keys, or to those where `mask` is true. The mask's shape is [rows, 1, 1, keys] or, with the
    /// tokens of the heads that share keys concatenated, [rows, 1, heads / kv_heads * tokens, keys].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn behind(&self, mask: Option<&Tensor>) -> Result<Tensor, LmError> {
        let (rows, heads, tokens, head_dim) = self.query.size4()?;
        // Heads that share keys are computed as tokens of one head, so that keys need not be repeated.
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

/// Implementation of attention in libtorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, FromRepr)]
#[strum(serialize_all = "snake_case")]
#[repr(i64)]
pub enum Kernel {
    /// Separate operations, with the weights of all queries and keys in memory.
    Math = 0,
    /// FlashAttention: in blocks that stay in the chip's own memory.
    Flash = 1,
    /// Memory-efficient attention: in blocks, with less memory than [`Math`](Self::Math) and more time than
    /// [`Flash`](Self::Flash).
    Efficient = 2,
    /// Attention of cuDNN.
    Cudnn = 3,
}

/// Kernel that libtorch chooses in training a model of this shape on sequences of this length; `None` if it is not one
/// of these.
///
/// # Errors
///
/// [`LmError::Engine`] for a failure of libtorch.
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

/// Mask that is true where query i attends to key j: i − window < j ≤ i.
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
