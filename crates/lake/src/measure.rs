//! What a policy is worth, and means over runs of it.

pub mod statistics;

pub use gridworld::performance::{Measured, Moves, Performance, distance, performance, performance_of};
