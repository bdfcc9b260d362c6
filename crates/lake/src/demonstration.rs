//! Trajectories that methods learn from: named, spelled or random.

pub mod random;
pub mod trajectory;
