//! A Frozen Lake testbed for alignment objectives.
//!
//! The optimal policy of a lake is known exactly, so what an objective teaches can be measured: the distance between
//! the transition matrix T(a|s) that it leaves behind and the optimal one.
//!
//! | to find | look in |
//! |---|---|
//! | the lake itself: maps, Gymnasium's dynamics P(s'\|s,a), policies as tables | [`world`] |
//! | V*, Q* and T* | [`solver`] |
//! | trajectories to learn from | [`demonstration`] |
//! | the two-layer policy, its start, its teacher, the episodes that it samples | [`policy`] |
//! | distance, success rate, return, and their means over runs | [`measure`] |
//! | recipes, their runs, and reports | [`experiment`] |
//! | measurements that explain a result | [`audit`] |
//! | the same methods over many designs | [`study`] |
//! | results as text, figures and a page | [`render`] |
//! | the lake as conversations | [`export`] |

pub mod audit;
pub mod demonstration;
pub mod error;
pub mod experiment;
pub mod export;
pub mod measure;
pub mod policy;
pub mod render;
#[cfg(feature = "full")]
pub mod study;

pub use error::LakeError;
pub use gridworld::{solver, world};
