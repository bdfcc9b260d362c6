//! Performance of a policy, and means over runs.

pub mod statistics;

pub use gridworld::performance::{Measured, Moves, Performance, distance, performance, performance_of};
