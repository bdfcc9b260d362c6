//! The connection between the processes of a run, independent of the library that implements it.

use std::fmt::Debug;

use tch::Tensor;

use crate::error::LmError;

/// A connection between processes.
pub trait Link: Debug {
    /// Rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Gathers bytes from all processes, in the order of their ranks.
    ///
    /// # Errors
    ///
    /// [`LmError::Link`] and [`LmError::Engine`].
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, LmError>;

    /// Sums the tensors of all processes in place. They must be contiguous, in 32 bits, and of the same shapes in all
    /// processes.
    ///
    /// # Errors
    ///
    /// [`LmError::Link`] and [`LmError::Engine`].
    fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError>;
}
