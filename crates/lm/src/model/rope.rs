//! Rotary positions: the cosines and sines by which queries and keys are turned.

use tch::{Device, Kind, Tensor};

use crate::config::{Rope, RopeScaling};
use crate::error::LmError;

/// Cosines and sines of some positions, each of shape [positions, head_dim / 2] or, where rows differ, [rows, 1, 1, head_dim / 2].
#[derive(Debug)]
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// The frequencies fᵢ by which a position is multiplied, head_dim / 2 of them, in radians a token.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let unscaled = (0..head_dim / 2).map(|pair| self.theta.powf(-((2 * pair) as f64) / head_dim as f64));
        unscaled.map(|frequency| self.scaling.apply(frequency)).collect()
    }
}

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                let turns = original_positions as f64 * frequency / std::f64::consts::TAU;
                let unscaled_share = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - unscaled_share) * frequency / factor + unscaled_share * frequency
            }
        }
    }
}

impl Angles {
    /// Of these positions, in the precision that the model computes in.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn new(rope: &Rope, head_dim: usize, positions: &[i64], kind: Kind, device: Device) -> Result<Self, LmError> {
        // Angles are products of 32-bit numbers, as in the code that checkpoints were trained with.
        let frequencies: Vec<f32> = rope.frequencies(head_dim).into_iter().map(|frequency| frequency as f32).collect();
        let positions: Vec<f32> = positions.iter().map(|position| *position as f32).collect();
        let frequencies = Tensor::f_from_slice(&frequencies)?.f_unsqueeze(0)?;
        let angles = Tensor::f_from_slice(&positions)?.f_unsqueeze(1)?.f_mul(&frequencies)?;
        let to = |values: Tensor| values.f_to_kind(kind)?.f_to_device(device);
        Ok(Self { cos: to(angles.f_cos()?)?, sin: to(angles.f_sin()?)? })
    }

    /// The same for rows of one token each, of which every one is at a position of its own.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn by_row(&self) -> Result<Self, LmError> {
        let by_row = |values: &Tensor| values.f_unsqueeze(1)?.f_unsqueeze(1);
        Ok(Self { cos: by_row(&self.cos)?, sin: by_row(&self.sin)? })
    }

    /// Turns a head's pairs, of which one half of the numbers holds the first and the other half the second parts. `heads` has
    /// the shape [rows, heads, positions, head_dim].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
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

    #[test]
    fn llama3_keeps_short_wavelengths_divides_long_ones_and_goes_between() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192 };
        let wavelength = |tokens: f64| std::f64::consts::TAU / tokens;
        assert_eq!(scaling.apply(wavelength(2000.0)), wavelength(2000.0));
        assert_eq!(scaling.apply(wavelength(9000.0)), wavelength(9000.0) / 8.0);
        // 8192 / 4096 = 2 turns lie a third of the way from 1 to 4.
        let between = scaling.apply(wavelength(4096.0)) / wavelength(4096.0);
        assert!((between - (2.0 / 3.0 / 8.0 + 1.0 / 3.0)).abs() < 1e-12, "{between}");
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let rope = Rope { theta: 100.0, scaling: RopeScaling::Linear { factor: 2.0 } };
        let expected = [0.5, 0.05];
        for (frequency, expected) in rope.frequencies(4).into_iter().zip(expected) {
            assert!((frequency - expected).abs() < 1e-15);
        }
    }
}
