//! Facts about models and recipes.
//!
//! - [`mod@score`]: log-probabilities of given responses.
//! - [`memory`]: an estimate of the memory that a stage needs.
//! - [`inspection`]: a summary of a model and of a recipe's memory, without loading either.

pub mod inspection;
pub mod memory;
pub mod score;
