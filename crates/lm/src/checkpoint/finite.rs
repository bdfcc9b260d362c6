//! Checks that a model's weights are finite: one NaN or infinity makes all its outputs NaN or infinite.

use tch::{Kind, Tensor};

use crate::checkpoint::config::Dtype;
use crate::error::LmError;

/// Size of the blocks that are checked without a branch per number.
const BLOCK: usize = 1 << 14;

/// Index of the first number of a stored tensor that is NaN or infinite, that is, with all exponent bits set.
pub(crate) fn first_not_finite(bytes: &[u8], dtype: Dtype) -> Option<usize> {
    let has_all = |bits: u16, exponent: u16| bits & exponent == exponent;
    match dtype {
        // The upper half of a 32-bit number is a bfloat16.
        Dtype::Float32 => first(bytes, |[_, _, a, b]| has_all(u16::from_le_bytes([a, b]), 0x7f80)),
        Dtype::Bfloat16 => first(bytes, |number| has_all(u16::from_le_bytes(number), 0x7f80)),
        Dtype::Float16 => first(bytes, |number| has_all(u16::from_le_bytes(number), 0x7c00)),
    }
}

/// The index of the first number for which the predicate holds. A block is checked as a whole, without a branch for
/// each number.
fn first<const WIDTH: usize>(bytes: &[u8], is_wrong: impl Fn([u8; WIDTH]) -> bool) -> Option<usize> {
    let (numbers, _) = bytes.as_chunks::<WIDTH>();
    numbers.chunks(BLOCK).enumerate().find_map(|(block, numbers)| {
        let is_any = numbers.iter().fold(false, |any, number| any | is_wrong(*number));
        let place = is_any.then(|| numbers.iter().position(|number| is_wrong(*number))).flatten()?;
        Some(block * BLOCK + place)
    })
}

/// Error text for the number at this index of a tensor of this shape.
pub(crate) fn problem(index: usize, size: &[i64]) -> String {
    let mut rest = index;
    let mut place: Vec<usize> = size
        .iter()
        .rev()
        .map(|size| {
            let size = usize::try_from(*size).unwrap_or(1).max(1);
            let own = rest % size;
            rest /= size;
            own
        })
        .collect();
    place.reverse();
    format!("expected finite numbers, got infinity or NaN at {place:?}")
}

/// Whether every number of a tensor is finite.
///
/// # Errors
///
/// [`LmError::Engine`] for a failure of libtorch.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool, LmError> {
    Ok(tensor.f_isfinite()?.f_all()?.f_to_kind(Kind::Int64)?.f_int64_value(&[])? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_is_not_finite_is_found_in_every_type_and_beyond_a_block() {
        for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
            for (index, wrong) in [(0, f64::NAN), (7, f64::INFINITY), (70_001, f64::NEG_INFINITY)] {
                // The greatest finite number of each type, whose exponent has a single 0 bit.
                let greatest = if dtype == Dtype::Float16 { 65504.0 } else { 3e38 };
                let mut numbers = vec![greatest; 70_002];
                let bytes =
                    |numbers: &[f64]| crate::checkpoint::weights::bytes(&Tensor::from_slice(numbers), dtype).unwrap();
                assert_eq!(first_not_finite(&bytes(&numbers), dtype), None);
                numbers[index] = wrong;
                assert_eq!(first_not_finite(&bytes(&numbers), dtype), Some(index), "{dtype}");
            }
        }
    }

    #[test]
    fn a_place_is_told_by_its_coordinates() {
        assert!(problem(23, &[2, 3, 4]).ends_with("at [1, 2, 3]"));
        assert!(problem(5, &[8]).ends_with("at [5]"));
    }
}
