//! The optimal policy of a lake, with a certificate of how exactly it is known.
//!
//! | to find | look in |
//! |---|---|
//! | values in memory, and the backup that every solver repeats | `plane` |
//! | value iteration, all cells at once | `value_iteration` |
//! | the same with a memory of one sweep more, for large lakes | `accelerated` |
//! | value iteration in place | `gauss_seidel` |
//! | policy iteration, exact and modified | `policy_iteration` |
//! | only where something still changes | `prioritised` |

mod accelerated;
mod gauss_seidel;
mod plane;
mod policy_iteration;
mod prioritised;
mod value_iteration;

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::environment::Environment;
use crate::map::{ACTIONS, Map};

use plane::Plane;

/// Probabilities of the four actions, one row a cell: T(a|s).
pub type TransitionMatrix = Vec<[f64; ACTIONS]>;

/// Actions whose values are this close to the best count as tied.
pub const TIE_TOLERANCE: f64 = 1e-9;
/// Temperature of the soft target, in units of return.
pub const TEMPERATURE: f64 = 0.1;
/// How exactly V* and Q* are computed where nothing else is said.
pub const ACCURACY: f64 = 1e-12;

/// Which optimal policy a learned one is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Target {
    /// The first of the best actions.
    Greedy,
    /// The best actions alike.
    Ties,
    /// Boltzmann over Q* at temperature 0.1.
    Soft,
}

/// How V* is computed. All give the same, each within its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[cfg_attr(feature = "program", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
pub enum Solver {
    /// Value iteration: V ← B V in all cells at once, on rayon's threads where the lake is large.
    ValueIteration,
    /// Value iteration with a memory of one sweep more, in about half the sweeps; likewise on rayon's threads.
    Accelerated,
    /// Value iteration in place, by turns from the last cell to the first and back.
    GaussSeidel,
    /// Policy iteration: the greedy policy's value exactly, by elimination; on lakes where that is too long, by sweeps.
    PolicyIteration,
    /// Policy iteration with a few sweeps in place of an evaluation.
    ModifiedPolicyIteration,
    /// Value iteration in blocks of the lake, only in those where something still changes, most first.
    Prioritised,
}

impl Solver {
    /// Every solver, the default first.
    pub const ALL: [Self; 6] = [
        Self::ValueIteration,
        Self::Accelerated,
        Self::GaussSeidel,
        Self::PolicyIteration,
        Self::ModifiedPolicyIteration,
        Self::Prioritised,
    ];
}

/// V* and Q* of a lake, discounted.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// V*(s); 0 in terminal cells.
    pub value: Vec<f64>,
    /// Q*(s,a); 0 in terminal cells.
    pub action_value: Vec<[f64; ACTIONS]>,
    /// maxₛ |maxₐ Q(s,a) − V(s)|, recomputed from the values above.
    pub residual: f64,
    /// Updates of cells divided by the number of cells, rounded up; an elimination is one.
    pub sweeps: usize,
    /// A bound of maxₛ |V(s) − V*(s)| and of the same for Q: (residual + rounding) / (1 − γ), where rounding bounds
    /// what the arithmetic of one backup may have hidden.
    pub error_bound: f64,
}

/// V* and Q* with discount 0 ≤ γ < 1, by the solver, to an error bound of `accuracy` > 0, or as exactly as rounding
/// allows.
///
/// # Formula
///
/// Q(s,a) = Σ P(s'|s,a) (r(s') + γ V(s')), with V = 0 in terminal cells, and V = B V with B V(s) = maxₐ Q(s,a). As B
/// brings any two V closer by the factor γ, |V − V*| ≤ |B V − V| / (1 − γ), whichever way V was found. So every solver
/// goes on until its residual is below `accuracy` (1 − γ) / 2 or four units of rounding in the largest value, and then
/// one more backup, the same for all, computes V, Q and the residual that is reported.
///
/// Sweeps begin at a V that no backup lowers, or none raises. As rounding respects order, values go on in that
/// direction to the end, so that sweeps end; those of [`Solver::Accelerated`] end where plain ones would no longer
/// gain.
///
/// # Errors
///
/// None; where `accuracy` is beyond rounding, `error_bound` says what was reached.
pub fn solve(environment: &Environment, gamma: f64, solver: Solver, accuracy: f64) -> Solution {
    let mut plane = Plane::new(environment, gamma, accuracy);
    let sweeps = match solver {
        Solver::ValueIteration => value_iteration::solve(&mut plane),
        Solver::Accelerated => accelerated::solve(&mut plane),
        Solver::GaussSeidel => gauss_seidel::solve(&mut plane),
        Solver::PolicyIteration => policy_iteration::solve(&mut plane),
        Solver::ModifiedPolicyIteration => policy_iteration::solve_modified(&mut plane),
        Solver::Prioritised => prioritised::solve(&mut plane),
    };
    plane.certify(sweeps)
}

/// Value iteration at the default accuracy.
pub fn value_iteration(environment: &Environment, gamma: f64) -> Solution {
    solve(environment, gamma, Solver::ValueIteration, ACCURACY)
}

/// The policy that takes every action alike, everywhere.
pub fn uniform_policy(map: &Map) -> TransitionMatrix {
    vec![[1.0 / ACTIONS as f64; ACTIONS]; map.cells().len()]
}

/// The optimal policy T*(a|s); rows of terminal cells are uniform.
pub fn optimal_policy(environment: &Environment, solution: &Solution, target: Target) -> TransitionMatrix {
    let row = |(cell, q): (usize, &[f64; ACTIONS])| {
        if environment.map().cells()[cell].is_terminal() {
            return [1.0 / ACTIONS as f64; ACTIONS];
        }
        let best = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let tied = q.map(|q| q >= best - TIE_TOLERANCE);
        let weights = match target {
            Target::Greedy => {
                let first = tied.iter().position(|&tied| tied);
                std::array::from_fn(|action| f64::from(Some(action) == first))
            }
            Target::Ties => tied.map(f64::from),
            Target::Soft => q.map(|q| ((q - best) / TEMPERATURE).exp()),
        };
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    };
    solution.action_value.iter().enumerate().map(row).collect()
}
