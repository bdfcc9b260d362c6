//! Results as typed rows, which the terminal, the JSON, the figures and the page all read.

use std::collections::BTreeMap;

use objective::{Configured, ObjectiveState, Parameters};
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::explanation::{Explanation, or_undefined};
use crate::map::ACTIONS;
use crate::measure::Measured;
use crate::recipe::Recipe;
use crate::solver::TransitionMatrix;

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
    /// All pairs of names with equally many policies, in the order of the rows; their first policies are paired, and so
    /// on.
    pub paired: Vec<Paired>,
}

/// Paired difference between the distances of two methods. Both have the same seeds, and so the same policies before
/// training: the interval of the differences is narrower than those of the distances suggest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Method that ends closer.
    pub closer: String,
    /// The other method.
    pub further: String,
    /// Mean difference of their distances.
    pub difference: f64,
    /// Half-width of its 95% confidence interval; `None` for a single run.
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
    /// Transition matrix T(a|s) of each policy, in the order of seeds, for files of their own.
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
    /// Number of samples whose returns were all equal, so that they gave no pair; only for objectives on pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ties: Option<Summary>,
}

/// A mean over runs with its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Mean over the runs.
    pub mean: f64,
    /// Half-width of the 95% confidence interval of the mean (Student's t); `None` for a single run.
    pub ci95: Option<f64>,
    /// One value per run, in the order of seeds.
    pub per_seed: Vec<f64>,
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

/// A quantity during training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Numbers of updates.
    pub steps: Vec<usize>,
    /// Means over the runs.
    pub mean: Vec<f64>,
    /// Half-widths of the 95% confidence intervals; `None` for a single run.
    pub ci95: Vec<Option<f64>>,
}

impl Summary {
    /// Mean and interval of at least one value.
    pub fn new(per_seed: Vec<f64>) -> Self {
        let count = per_seed.len() as f64;
        let mean = per_seed.iter().sum::<f64>() / count;
        let squares: f64 = per_seed.iter().map(|value| (value - mean).powi(2)).sum();
        let ci95 = StudentsT::new(0.0, 1.0, count - 1.0)
            .ok()
            .map(|student| student.inverse_cdf(0.975) * (squares / (count - 1.0) / count).sqrt());
        Self { mean, ci95, per_seed }
    }
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
    /// All pairs of rows with equally many policies.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // 1, 2, 3, 4: s = 1.2909944, t(0.975; 3) = 3.1824463, so the half-width is 3.1824463 * 1.2909944 / 2.
        let summary = Summary::new(vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(summary.mean, 2.5);
        assert!((summary.ci95.unwrap() - 2.054_260_3).abs() < 1e-6, "{summary:?}");
    }

    #[test]
    fn one_run_has_no_interval() {
        assert_eq!(Summary::new(vec![1.0]).ci95, None);
    }
}
