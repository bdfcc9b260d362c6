//! The policy in training: its start and its teacher as a recipe spells them, and policies as files.

#[cfg(feature = "program")]
pub mod policy_file;
pub mod start;
pub mod teacher;

pub use gridworld::policy::{LakePolicy, distillation, fit, given, network, rollout};
