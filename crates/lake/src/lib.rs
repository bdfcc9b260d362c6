//! A Frozen Lake testbed for alignment objectives.
//!
//! The optimal policy of a lake is known exactly, so what an objective teaches can be measured: the distance between
//! the transition matrix T(a|s) that it leaves behind and the optimal one.
//!
//! | to find | look in |
//! |---|---|
//! | maps and their trajectories | [`map`], [`generate`], [`trajectory`], [`drawn`] |
//! | Gymnasium's dynamics, P(s'\|s,a) | [`environment`] |
//! | V*, Q* and T* | [`solver`] |
//! | the two-layer policy and its backward pass | [`network`], [`policy`] |
//! | the policy before training | [`start`] |
//! | what distillation learns from | [`teacher`] |
//! | episodes that a policy samples | [`rollout`] |
//! | distance, success rate, return | [`measure`] |
//! | what to run | [`recipe`] |
//! | running it, and what policies are measured against | [`experiment`], [`setting`] |
//! | the same methods over many designs | [`study`] |
//! | why it came out so | [`explanation`] |
//! | policies as files, of any program's | [`policy_file`] |
//! | the lake as conversations | [`export`] |
//! | what came out | [`report`], [`figures`], [`page`], [`drawing`], [`fitted`] |

pub mod drawing;
pub mod drawn;
pub mod environment;
pub mod error;
pub mod experiment;
pub mod explanation;
pub mod export;
#[cfg(feature = "program")]
pub mod figures;
pub mod fitted;
pub mod generate;
pub mod map;
pub mod measure;
pub mod network;
mod number;
#[cfg(feature = "program")]
pub mod page;
pub mod policy;
#[cfg(feature = "program")]
pub mod policy_file;
pub mod recipe;
pub mod report;
pub mod rollout;
pub mod setting;
mod snapshots;
pub mod solver;
mod spelling;
pub mod start;
#[cfg(feature = "program")]
pub mod study;
pub mod teacher;
pub mod trajectory;

pub use error::LakeError;
