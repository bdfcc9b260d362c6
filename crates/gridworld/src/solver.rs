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
//! | exactness relative to each cell's own value, behind every solver | `polish` |
//! | how exactly each value is known, and which actions tie | `certificate` |

mod accelerated;
mod certificate;
mod gauss_seidel;
mod plane;
mod policy_iteration;
mod polish;
mod prioritised;
mod value_iteration;

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::error::GridError;
use crate::world::environment::Environment;
use crate::world::map::{ACTIONS, Action, Cell, Map};
use crate::world::policy_table::TransitionMatrix;

use certificate::{Certificate, Choice};
use plane::Plane;

/// Temperature of the soft target, in units of return.
pub const TEMPERATURE: f64 = 0.1;
/// Default accuracy of V* and Q*, relative to |V*(s)| where that is below 1.
pub const ACCURACY: f64 = 1e-12;

/// Value of width² (1 − γ) below which elimination is faster than sweeps.
const ELIMINATION: f64 = 0.25;
/// Number of cells from which blocks are faster than whole sweeps.
const LARGE: usize = 1 << 17;
/// Magnitude below which a value cannot be distinguished from one that rounding makes 0.
const SMALLEST: f64 = 1e-290;

/// Optimal policy that a learned one is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Target {
    /// The first of the best actions, with probability 1.
    Greedy,
    /// All best actions with equal probability.
    Ties,
    /// Boltzmann distribution over Q* at temperature 0.1.
    Soft,
}

/// Algorithm that computes V*. All give the same result, each within its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[cfg_attr(feature = "options", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
pub enum Solver {
    /// Value iteration: V ← B V in all cells at once, on rayon's threads if the lake is large.
    ValueIteration,
    /// Value iteration that also uses the values one sweep before, in about half the sweeps; also on rayon's threads.
    Accelerated,
    /// Value iteration in place, alternately from the last cell to the first and back.
    GaussSeidel,
    /// Policy iteration: the greedy policy's value is computed exactly by elimination, or by sweeps on lakes where that
    /// takes too long.
    PolicyIteration,
    /// Policy iteration with a few sweeps instead of an evaluation.
    ModifiedPolicyIteration,
    /// Value iteration in blocks of the lake, only in those that still change, in the order of the largest change.
    Prioritised,
}

impl Solver {
    /// All solvers, the default first.
    pub const ALL: [Self; 6] = [
        Self::ValueIteration,
        Self::Accelerated,
        Self::GaussSeidel,
        Self::PolicyIteration,
        Self::ModifiedPolicyIteration,
        Self::Prioritised,
    ];

    /// The solver that is fastest on a lake.
    ///
    /// Elimination takes about width² multiplications a cell, whatever the discount; sweeps take some 1 / (1 − γ) of a
    /// cell's backups; and on lakes beyond the processor's caches only blocks that still change are worth a sweep.
    pub fn fastest(map: &Map, gamma: f64) -> Self {
        let (width, cells) = (map.width(), map.cells().len());
        if policy_iteration::eliminates(width, cells) && (width * width) as f64 * (1.0 - gamma) < ELIMINATION {
            Self::PolicyIteration
        } else if cells < LARGE {
            Self::Accelerated
        } else {
            Self::Prioritised
        }
    }
}

/// V* and Q* of a lake, discounted.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Discount γ.
    pub gamma: f64,
    /// Values V*(s); 0 in terminal cells.
    pub value: Vec<f64>,
    /// Values Q*(s,a); 0 in terminal cells.
    pub action_value: Vec<[f64; ACTIONS]>,
    /// Residual maxₛ |maxₐ Q(s,a) − V(s)|, recomputed from the values above.
    pub residual: f64,
    /// Number of cell updates divided by the number of cells, rounded up; an elimination counts as one sweep.
    pub sweeps: usize,
    /// Bound of maxₛ |V(s) − V*(s)|, and of the same for Q: (residual + rounding) / (1 − γ), where rounding bounds the
    /// arithmetic error of one backup.
    pub error_bound: f64,
    /// Bound of |V(s) − V*(s)| for each cell, which is small in cells with a small value.
    pub value_error_bound: Vec<f64>,
}

impl Solution {
    /// Maximum bound of |V(s) − V*(s)|, relative to |V(s)| where that is below 1: the quantity that `accuracy` limits.
    /// Infinite if a value may be 0 or not.
    pub fn relative_error_bound(&self) -> f64 {
        let relative = |(value, bound): (&f64, &f64)| if *bound == 0.0 { 0.0 } else { bound / value.abs().min(1.0) };
        self.value.iter().zip(&self.value_error_bound).map(relative).fold(0.0, f64::max)
    }
}

/// Computes V* and Q* for a discount 0 ≤ γ < 1 with a solver, to an error bound of `accuracy` > 0 or as exactly as
/// rounding allows. The bound is relative to |V*(s)| in cells where that is below 1.
///
/// # Formula
///
/// Q(s,a) = Σ P(s'|s,a) (r(s') + γ V(s')), with V = 0 in terminal cells, and V = B V with B V(s) = maxₐ Q(s,a). As B
/// brings any two V closer by the factor γ, |V − V*| ≤ |B V − V| / (1 − γ), whichever way V was found. So every solver
/// goes on until its residual is below `accuracy` (1 − γ) / 2 or four units of rounding in the largest value. Then
/// cells are swept on, the same way for all, until each is settled relative to its own value, as often as the bound of
/// each cell's error (`value_error_bound`) asks for; and one more backup computes V, Q and the residual that is
/// reported.
///
/// Sweeps begin at a V that no backup lowers, or none raises. As rounding respects order, values go on in that
/// direction to the end, so that sweeps end; those of [`Solver::Accelerated`] end where plain ones would no longer
/// gain.
///
/// # Errors
///
/// None; where `accuracy` is beyond rounding, `error_bound` and `value_error_bound` say what was reached.
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
    finish(&mut plane, sweeps, accuracy * (1.0 - gamma) / 4.0)
}

/// Relative change below which the first polish continues down to the rounding error.
const NEAR_ROUNDING: f64 = 2048.0 * f64::EPSILON;
/// Relative change below which later polishes continue down to the rounding error.
const AT_ROUNDING: f64 = 16.0 * f64::EPSILON;

/// Polishes until no cell changes by more than a share of its value, and further if the accuracy requires it.
fn finish(plane: &mut Plane, mut sweeps: usize, share: f64) -> Solution {
    let mut share = if share < NEAR_ROUNDING { 0.0 } else { share };
    loop {
        sweeps += polish::solve(plane, share);
        let solution = plane.certify(sweeps);
        let excess = solution.relative_error_bound() / plane.accuracy();
        if excess <= 1.0 || share == 0.0 {
            return solution;
        }
        share /= 2.0 * excess;
        share = if share < AT_ROUNDING { 0.0 } else { share };
    }
}

/// Computes V* and Q* by the fastest solver, at the default accuracy.
pub fn solve_fast(environment: &Environment, gamma: f64) -> Solution {
    solve(environment, gamma, Solver::fastest(environment.map(), gamma), ACCURACY)
}

/// Value iteration at the default accuracy.
pub fn value_iteration(environment: &Environment, gamma: f64) -> Solution {
    solve(environment, gamma, Solver::ValueIteration, ACCURACY)
}

/// The optimal policy T*(a|s); rows of terminal cells are uniform.
///
/// Actions tie where the bounds of their values' errors cannot tell them apart. Where those bounds are not small beside
/// the values that decide, the lake is solved further first, as exactly as rounding allows.
///
/// # Errors
///
/// [`GridError::Undecided`] for a cell whose actions cannot be distinguished even so: values below 1e-290, which are
/// about to round to 0, or values whose difference is below the bound of its rounding while that bound is no small
/// share of them.
pub fn optimal_policy(
    environment: &Environment,
    solution: &Solution,
    target: Target,
) -> Result<TransitionMatrix, GridError> {
    if target == Target::Soft {
        return Ok(boltzmann(environment, solution, TEMPERATURE));
    }
    let tied = best_actions(environment, solution).or_else(|_| {
        // First as exactly as a tie asks for, which is enough but for rounding; then as exactly as numbers allow.
        let gamma = solution.gamma;
        let accuracy = certificate::tie(gamma) / 4.0;
        let mut plane = Plane::resume(environment, solution, accuracy);
        let solution = finish(&mut plane, solution.sweeps, accuracy * (1.0 - gamma) / 4.0);
        best_actions(environment, &solution).or_else(|_| {
            let mut plane = Plane::resume(environment, &solution, f64::MIN_POSITIVE);
            best_actions(environment, &finish(&mut plane, solution.sweeps, 0.0))
        })
    })?;
    Ok(rows(environment, |cell| {
        let tied = tied[cell];
        let first = tied.iter().position(|&tied| tied);
        match target {
            Target::Greedy => std::array::from_fn(|action| f64::from(Some(action) == first)),
            Target::Ties | Target::Soft => tied.map(f64::from),
        }
    }))
}

/// Boltzmann policy over Q* at a temperature, in units of return; rows of terminal cells are uniform.
pub fn boltzmann(environment: &Environment, solution: &Solution, temperature: f64) -> TransitionMatrix {
    rows(environment, |cell| {
        let q = solution.action_value[cell];
        let best = q.into_iter().fold(f64::NEG_INFINITY, f64::max);
        q.map(|q| ((q - best) / temperature).exp())
    })
}

/// Divides the weights of the actions by their sum.
fn rows(environment: &Environment, weights: impl Fn(usize) -> [f64; ACTIONS]) -> TransitionMatrix {
    let row = |(cell, kind): (usize, &Cell)| {
        let weights = if kind.is_terminal() { [1.0; ACTIONS] } else { weights(cell) };
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    };
    environment.map().cells().iter().enumerate().map(row).collect()
}

/// Actions of each cell that are not certainly worse than the best.
fn best_actions(environment: &Environment, solution: &Solution) -> Result<Vec<[bool; ACTIONS]>, GridError> {
    let plane = Plane::resume(environment, solution, ACCURACY);
    let Solution { value, action_value, value_error_bound, .. } = solution;
    let certificate = Certificate::known(&plane, value, action_value, value_error_bound);
    let tied = |(cell, kind): (usize, &Cell)| {
        if kind.is_terminal() {
            return Ok([true; ACTIONS]);
        }
        let choice = certificate.choice(cell);
        if choice.certain { Ok(choice.tied) } else { Err(undecided(environment.map(), cell, &choice)) }
    };
    environment.map().cells().iter().enumerate().map(tied).collect()
}

fn undecided(map: &Map, cell: usize, choice: &Choice) -> GridError {
    let Choice { tied, gap, bound, terms, .. } = *choice;
    let actions: Vec<_> = Action::ALL.into_iter().filter(|&action| tied[action as usize]).map(Action::word).collect();
    let problem = match terms < SMALLEST {
        true => format!("the values that decide, {terms:e}, are below {SMALLEST:e} and about to round to 0"),
        false => format!("their values differ by {gap:e}, which is less than the bound {bound:e} of its rounding"),
    };
    GridError::Undecided {
        row: cell / map.width() + 1,
        column: cell % map.width() + 1,
        actions: actions.join(", "),
        problem,
    }
}
