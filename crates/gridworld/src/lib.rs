//! Frozen Lake as a gridworld: the lake, its solvers and the policy network, which contain the hot loops.
//!
//! The lake of Gymnasium is a grid of cells with known dynamics, so its optimal policy can be computed exactly, and a
//! two-layer network is enough to learn a policy on it. Programs that compare methods of training stand above this
//! crate; nothing here knows recipes, reports or a command line. It is compiled at full optimisation in every profile.
//!
//! | to find | look in |
//! |---|---|
//! | maps, Gymnasium's dynamics P(s'\|s,a), policies as tables | [`world`] |
//! | V*, Q* and T* | [`solver`] |
//! | the two-layer policy, its backward pass, its fit to a table, the episodes that it samples | [`policy`] |
//! | distance from the optimal policy, success rate, return | [`performance`] |
//! | streams of random numbers | [`seeds`] |
//! | names with parameters | [`spelling`] |

pub mod error;
pub mod performance;
pub mod policy;
pub mod seeds;
pub mod solver;
pub mod spelling;
pub mod world;

pub use error::GridError;
