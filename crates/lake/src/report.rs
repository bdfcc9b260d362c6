//! What came out, as typed rows: the terminal, the JSON, the figures and the page all read these.

use std::collections::BTreeMap;

use objective::{Configured, ObjectiveState, Parameters};
use program::statistics::Mean;
use serde::Serialize;

use crate::explanation::{Explanation, or_undefined};
use crate::map::ACTIONS;
use crate::measure::Measured;
use crate::recipe::Recipe;
use crate::solver::TransitionMatrix;

/// The result of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// The resolved recipe.
    pub recipe: Recipe,
    /// The map's rows.
    pub map: Vec<String>,
    /// The words that were learned from, by role.
    pub trajectories: BTreeMap<&'static str, String>,
    /// What the learned policies are measured against.
    pub optimal: Optimal,
    /// One row a method, the least distance first.
    pub results: Vec<MethodReport>,
    /// Every two methods, in the order of the rows.
    pub paired: Vec<Paired>,
}

/// What policies that any program trained come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureReport {
    /// The program's version.
    pub version: &'static str,
    /// The fields of a recipe that say on which lake they were measured, and against what.
    pub lake: toml::Table,
    /// The map's rows.
    pub map: Vec<String>,
    /// What they are measured against.
    pub optimal: Optimal,
    /// One row a name, the least distance first.
    pub results: Vec<PolicyReport>,
    /// Every two names of as many policies, in the order of the rows; the first policy of one is held against the first of the other.
    pub paired: Vec<Paired>,
}

/// How much further from the optimal policy one method ends than another. Both have the same seeds, and so the same policies
/// before training: the interval of the differences is narrower than those of the distances suggest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// The method that ends closer.
    pub closer: String,
    /// The other.
    pub further: String,
    /// The mean difference of their distances.
    pub difference: f64,
    /// Half-width of its 95% confidence interval; none for a single run.
    pub ci95: Option<f64>,
}

/// The optimal policy and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimal {
    /// V*(s), discounted.
    pub value: Vec<f64>,
    /// T*(a|s).
    pub transition_matrix: TransitionMatrix,
    /// Its success rate within the horizon.
    pub success_rate: f64,
    /// Its undiscounted mean return within the horizon.
    #[serde(rename = "return")]
    pub mean_return: f64,
}

/// What policies of one name are worth, wherever they were trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyReport {
    /// The method's label.
    pub method: String,
    /// Mean squared error between T and T* over the non-terminal cells.
    pub distance: Summary,
    /// Probability of reaching a goal within the horizon.
    pub success_rate: Fares,
    /// Undiscounted return within the horizon.
    #[serde(rename = "return")]
    pub mean_return: Fares,
    /// T(a|s), mean over the policies.
    pub transition_matrix: TransitionMatrix,
    /// T(a|s) of each, in the order of seeds. These are files of their own.
    #[serde(skip)]
    pub policies: Vec<TransitionMatrix>,
}

/// What one method's runs came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodReport {
    /// What the runs' policies are worth.
    #[serde(flatten)]
    pub policy: PolicyReport,
    /// The objective's registered name.
    pub objective: String,
    /// The objective's parameters in force.
    pub parameters: Parameters,
    /// The methods that trained before it, with their parameters; the curve and what is said of before training are of what
    /// they left behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Configured>,
    /// The distance before training.
    pub initial_distance: Summary,
    /// The distance over all cells.
    pub distance_all_cells: Summary,
    /// The distance over the cells of the demonstration.
    pub distance_demonstrated_cells: Summary,
    /// Cells whose encodings the training steps read.
    pub cells_visited: Summary,
    /// Distance over the non-terminal cells along the way.
    pub curve: Curve,
    /// What was sampled from the lake, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
    /// The loss before the last update, over the runs that had data to learn from; undefined if no run had.
    #[serde(serialize_with = "or_undefined")]
    pub last_loss: Option<Summary>,
    /// The objective's metrics before the last update, means over the runs.
    pub last_metrics: BTreeMap<&'static str, f64>,
    /// What the objective carries from step to step, after the last update, one a run, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<ObjectiveState>>,
    /// T(a|s) at each step of the curve, means over the runs to a millionth.
    pub snapshots: Vec<TransitionMatrix>,
    /// Why the method ended where it did, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

/// What a run sampled from the lake with the policy in training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sampled {
    /// Episodes a run.
    pub episodes: usize,
    /// Samples whose returns were all equal, so that they gave no pair; only where pairs are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ties: Option<Summary>,
}

/// A mean over runs with its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// Half-width of the 95% confidence interval of the mean (Student's t); none for a single run.
    pub ci95: Option<f64>,
    /// One value a run, in the order of seeds.
    pub per_seed: Vec<f64>,
}

/// How the greedy and the sampled policy fare: means over runs and half-widths of their 95% confidence intervals.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Fares {
    pub greedy: f64,
    pub sampled: f64,
    pub ci95: Intervals,
}

/// Half-widths of 95% confidence intervals; none for a single run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Intervals {
    pub greedy: Option<f64>,
    pub sampled: Option<f64>,
}

/// A quantity along training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Updates done.
    pub steps: Vec<usize>,
    /// Means over the runs.
    pub mean: Vec<f64>,
    /// Half-widths of the 95% confidence intervals; none for a single run.
    pub ci95: Vec<Option<f64>>,
}

impl Summary {
    /// Mean and interval of at least one value.
    pub fn new(per_seed: Vec<f64>) -> Self {
        let Mean { mean, half_width: ci95 } = Mean::of(&per_seed);
        Self { mean, ci95, per_seed }
    }
}

impl PolicyReport {
    /// What at least one policy of this name is worth.
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
    /// Every two of the rows that have as many policies.
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
