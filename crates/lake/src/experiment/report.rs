//! Results as typed rows, which the terminal, the JSON, the figures and the page all read.

use std::collections::BTreeMap;

use objective::{Configured, ObjectiveState, Parameters};
use serde::Serialize;

use crate::audit::{Explanation, or_undefined};
use crate::experiment::recipe::Recipe;
use crate::measure::Measured;
use crate::measure::statistics::{Curve, Summary};
use crate::world::map::ACTIONS;
use crate::world::policy_table::TransitionMatrix;

/// The result of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// Resolved recipe.
    pub recipe: Recipe,
    /// Rows of the map.
    pub map: Vec<String>,
    /// Words of the trajectories that methods learned from, by role.
    pub trajectories: BTreeMap<&'static str, String>,
    /// Policy that the learned ones are compared with.
    pub optimal: Optimal,
    /// One row per method, the smallest distance first.
    pub results: Vec<MethodReport>,
    /// All pairs of methods, in the order of the rows.
    pub paired: Vec<Paired>,
}

/// Results of policies from files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureReport {
    /// Version of the program.
    pub version: &'static str,
    /// Fields of a recipe that describe the lake and the target of the measurement.
    pub lake: toml::Table,
    /// Rows of the map.
    pub map: Vec<String>,
    /// Policy that the others are compared with.
    pub optimal: Optimal,
    /// One row per name, the smallest distance first.
    pub results: Vec<PolicyReport>,
    /// All pairs of names with the same number of policies, in the order of the rows. The n-th policies of both are
    /// paired.
    pub paired: Vec<Paired>,
}

/// Paired difference between the distances of two methods. Both have the same seeds, and so the same policies before
/// training: the interval of the differences is narrower than those of the distances suggest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Method that ends closer.
    pub closer: String,
    /// Method that ends further away.
    pub further: String,
    /// Mean difference between the distances of the two methods.
    pub difference: f64,
    /// Half-width of the 95% confidence interval of the difference; `None` for a single run.
    pub ci95: Option<f64>,
}

/// The optimal policy and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimal {
    /// Values V*(s), discounted.
    pub value: Vec<f64>,
    /// Transition matrix T*(a|s).
    pub transition_matrix: TransitionMatrix,
    /// Success rate within the horizon.
    pub success_rate: f64,
    /// Undiscounted mean return within the horizon.
    #[serde(rename = "return")]
    pub mean_return: f64,
}

/// Measurements of the policies of one name, wherever they were trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyReport {
    /// Label of the method.
    pub method: String,
    /// Mean squared error between T and T* over the non-terminal cells.
    pub distance: Summary,
    /// Probability of reaching a goal within the horizon.
    pub success_rate: Fares,
    /// Undiscounted return within the horizon.
    #[serde(rename = "return")]
    pub mean_return: Fares,
    /// Transition matrix T(a|s), mean over the policies.
    pub transition_matrix: TransitionMatrix,
    /// Transition matrix T(a|s) of each policy, in the order of seeds, for separate files.
    #[serde(skip)]
    pub policies: Vec<TransitionMatrix>,
}

/// Results of one method's runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodReport {
    /// Measurements of the runs' policies.
    #[serde(flatten)]
    pub policy: PolicyReport,
    /// Registered name of the objective.
    pub objective: String,
    /// All parameters of the objective.
    pub parameters: Parameters,
    /// Methods that trained before it, with their parameters. The curve and the measurements before training begin
    /// after them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Configured>,
    /// Distance before training.
    pub initial_distance: Summary,
    /// Distance over all cells.
    pub distance_all_cells: Summary,
    /// Distance over the cells of the demonstration.
    pub distance_demonstrated_cells: Summary,
    /// Number of cells whose encodings the training steps read.
    pub cells_visited: Summary,
    /// Distance over the non-terminal cells during training.
    pub curve: Curve,
    /// Episodes sampled from the lake, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
    /// Loss before the last update, over the runs that had data to learn from; undefined if no run had.
    #[serde(serialize_with = "or_undefined")]
    pub last_loss: Option<Summary>,
    /// Metrics of the objective before the last update, means over the runs.
    pub last_metrics: BTreeMap<&'static str, f64>,
    /// State of the objective after the last update, one per run, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<ObjectiveState>>,
    /// Transition matrix T(a|s) at each point of the curve, mean over the runs, to a millionth.
    pub snapshots: Vec<TransitionMatrix>,
    /// Explanation of the result, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

/// Episodes that a run sampled from the lake with the policy in training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sampled {
    /// Number of episodes per run.
    pub episodes: usize,
    /// Number of samples without a pair, because their returns were all equal; only for objectives on pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ties: Option<Summary>,
}

/// Performance of the greedy and the sampled policy: means over runs and half-widths of their 95% confidence intervals.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Fares {
    pub greedy: f64,
    pub sampled: f64,
    pub ci95: Intervals,
}

/// Half-widths of 95% confidence intervals; `None` for a single run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Intervals {
    pub greedy: Option<f64>,
    pub sampled: Option<f64>,
}

impl PolicyReport {
    /// Measurements of at least one policy of this name.
    pub fn new(method: String, measured: Vec<Measured>) -> Self {
        let each = |value: fn(&Measured) -> f64| measured.iter().map(value).collect::<Vec<_>>();
        let mean = |cell: usize, action: usize| {
            measured.iter().map(|policy| policy.transition_matrix[cell][action]).sum::<f64>() / measured.len() as f64
        };
        let cells = 0..measured.first().map_or(0, |policy| policy.transition_matrix.len());
        Self {
            method,
            distance: Summary::new(each(|policy| policy.distance)),
            success_rate: Fares::new(
                each(|policy| policy.greedy.success_rate),
                each(|policy| policy.sampled.success_rate),
            ),
            mean_return: Fares::new(
                each(|policy| policy.greedy.mean_return),
                each(|policy| policy.sampled.mean_return),
            ),
            transition_matrix: cells
                .map(|cell| std::array::from_fn::<_, ACTIONS, _>(|action| mean(cell, action)))
                .collect(),
            policies: measured.into_iter().map(|policy| policy.transition_matrix).collect(),
        }
    }
}

impl Paired {
    /// All pairs of rows with the same number of policies.
    pub fn every<'a>(results: &[&'a PolicyReport]) -> Vec<Self> {
        let paired = |closer: &PolicyReport, further: &PolicyReport| {
            let seeds = further.distance.per_seed.iter().zip(&closer.distance.per_seed);
            let Summary { mean, ci95, .. } = Summary::new(seeds.map(|(further, closer)| further - closer).collect());
            Self { closer: closer.method.clone(), further: further.method.clone(), difference: mean, ci95 }
        };
        let alike = |closer: &PolicyReport, further: &PolicyReport| {
            closer.distance.per_seed.len() == further.distance.per_seed.len()
        };
        let others = |(place, closer): (usize, &&'a PolicyReport)| {
            let closer = *closer;
            let further = results[place + 1..].iter().filter(move |further| alike(closer, further));
            further.map(move |further| paired(closer, further))
        };
        results.iter().enumerate().flat_map(others).collect()
    }
}

impl Fares {
    /// Means and intervals of at least one run each.
    pub fn new(greedy: Vec<f64>, sampled: Vec<f64>) -> Self {
        let (greedy, sampled) = (Summary::new(greedy), Summary::new(sampled));
        Self {
            greedy: greedy.mean,
            sampled: sampled.mean,
            ci95: Intervals { greedy: greedy.ci95, sampled: sampled.ci95 },
        }
    }
}
