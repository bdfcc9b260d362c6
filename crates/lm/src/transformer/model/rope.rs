//! Rotary positions: the cosines and sines by which queries and keys are rotated.

use std::f64::consts::TAU;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::config::{Rope, RopeScaling};
use crate::error::LmError;

/// Cosines and sines of positions, [positions, head_dim / 2] each or, if rows differ, [rows, 1, 1, head_dim / 2].
#[derive(Debug)]
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Frequencies fᵢ by which a position is multiplied, [head_dim / 2], radians per token.
    ///
    /// They are computed in 32 bits, operation by operation as in the code that checkpoints were trained with: at a
    /// distant position, a difference in the last bit becomes a different angle.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn frequencies(&self, head_dim: usize) -> Result<Tensor, LmError> {
        let doubled: Vec<f32> = (0..head_dim / 2).map(|pair| (2 * pair) as f32).collect();
        let exponents = Tensor::f_from_slice(&doubled)?.f_div_scalar(head_dim as f64)?;
        self.scaling.apply(Tensor::f_pow_scalar(self.theta, &exponents)?.f_reciprocal()?)
    }
}

impl RopeScaling {
    fn apply(self, frequencies: Tensor) -> Result<Tensor, LmError> {
        Ok(match self {
            Self::Default => frequencies,
            Self::Linear { factor } => frequencies.f_div_scalar(factor)?,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                let original = original_positions as f64;
                let wavelengths = frequencies.f_reciprocal()?.f_mul_scalar(TAU)?;
                let is_long = wavelengths.f_gt(original / low_freq_factor)?;
                let is_short = wavelengths.f_lt(original / high_freq_factor)?;
                let divided = frequencies.f_div_scalar(factor)?.f_where_self(&is_long, &frequencies)?;
                // Number of rotations over the original positions, from the shortest of the long wavelengths to the
                // longest of the short.
                let turns = wavelengths.f_reciprocal()?.f_mul_scalar(original)?;
                let share = turns.f_sub_scalar(low_freq_factor)?.f_div_scalar(high_freq_factor - low_freq_factor)?;
                let others_share = share.f_neg()?.f_add_scalar(1.0)?;
                let between = others_share.f_mul(&divided)?.f_div_scalar(factor)?.f_add(&share.f_mul(&divided)?)?;
                divided.f_where_self(&is_long.f_logical_or(&is_short)?, &between)?
            }
        })
    }
}

impl Angles {
    /// Angles of these positions, in the type in which the model computes.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn new(rope: &Rope, head_dim: usize, positions: &[i64], kind: Kind, device: Device) -> Result<Self, LmError> {
        let frequencies = rope.frequencies(head_dim)?.f_unsqueeze(0)?;
        let positions: Vec<f32> = positions.iter().map(|position| *position as f32).collect();
        let angles = Tensor::f_from_slice(&positions)?.f_unsqueeze(1)?.f_mul(&frequencies)?;
        let to = |values: Tensor| values.f_to_kind(kind)?.f_to_device(device);
        Ok(Self { cos: to(angles.f_cos()?)?, sin: to(angles.f_sin()?)? })
    }

    /// The same angles for rows of one token, each row at its own position.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn by_row(&self) -> Result<Self, LmError> {
        let by_row = |values: &Tensor| values.f_unsqueeze(1)?.f_unsqueeze(1);
        Ok(Self { cos: by_row(&self.cos)?, sin: by_row(&self.sin)? })
    }

    /// Rotates pairs of each head's numbers: number i of the first half of the head with number i of the second half.
    /// `heads` has shape [rows, heads, positions, head_dim].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn turn(&self, heads: &Tensor) -> Result<Tensor, LmError> {
        let halves = heads.f_chunk(2, -1)?;
        let (first, second) = (&halves[0], &halves[1]);
        let turned_first = first.f_mul(&self.cos)?.f_sub(&second.f_mul(&self.sin)?)?;
        let turned_second = second.f_mul(&self.cos)?.f_add(&first.f_mul(&self.sin)?)?;
        Ok(Tensor::f_cat(&[turned_first, turned_second], -1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: &Tensor, expected: &[f64]) {
        let found = Vec::<f64>::try_from(found.to_kind(Kind::Double)).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{found}, {expected}");
        }
    }

    #[test]
    fn llama3_keeps_short_wavelengths_divides_long_ones_and_goes_between() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192 };
        let frequencies = [2000.0, 9000.0, 4096.0].map(|tokens| TAU / tokens);
        let scaled = scaling.apply(Tensor::from_slice(&frequencies)).unwrap();
        // 8192 / 4096 = 2 rotations lie a third of the way from 1 to 4.
        let [short, long, between] = frequencies;
        close(&scaled, &[short, long / 8.0, between * (2.0 / 3.0 / 8.0 + 1.0 / 3.0)]);
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let rope = Rope { theta: 100.0, scaling: RopeScaling::Linear { factor: 2.0 } };
        close(&rope.frequencies(4).unwrap(), &[0.5, 0.05]);
    }
}
