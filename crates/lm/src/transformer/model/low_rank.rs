//! A low-rank adapter of a linear map: its forward pass, and its merge into the map.

use tch::{Kind, Tensor};

use super::layer::Convert;
use crate::error::LmError;

/// Low-rank adapter s B A, which is added to a frozen map ([`crate::checkpoint::lora`]).
#[derive(Debug)]
pub struct LowRank {
    /// Inner factor A, [rank, in].
    pub(super) inner: Tensor,
    /// Outer factor B, [out, rank].
    pub(super) outer: Tensor,
    /// Scaling s of the product.
    pub(super) scaling: f64,
}

impl LowRank {
    /// Computes y + B (s A x), which equals y to the last bit if B is zero.
    pub(super) fn add(&self, y: &Tensor, x: &Tensor) -> Result<Tensor, LmError> {
        let inner = x.f_linear(&self.inner, None::<&Tensor>)?.f_mul_scalar(self.scaling)?;
        Ok(y.f_add(&inner.f_linear(&self.outer, None::<&Tensor>)?)?)
    }

    /// Computes W + s B A in 32 bits, and rounds it to the type of W.
    pub(super) fn merge(&self, weight: &Tensor) -> Result<Tensor, LmError> {
        let wide = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::Float);
        let product = wide(&self.outer)?.f_matmul(&wide(&self.inner)?)?.f_mul_scalar(self.scaling)?;
        Ok(wide(weight)?.f_add(&product)?.f_to_kind(weight.f_kind()?)?)
    }

    pub(super) fn map(&self, convert: &Convert<'_>) -> Result<Self, LmError> {
        Ok(Self { inner: convert(&self.inner)?, outer: convert(&self.outer)?, scaling: self.scaling })
    }

    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [&self.inner, &self.outer]
    }
}
