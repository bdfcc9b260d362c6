//! Measurements that explain why one objective ends closer to the optimal policy than another.
//!
//! All of it is about a method's own training, the last stage where methods train in sequence: *before* is the policy
//! that this stage begins with and takes as reference, untrained unless other methods came first, and *trained* is what
//! it leaves behind.
//!
//! # Formula
//!
//! **Reads.** Each update reads every state of the responses that it learns from once; a fused state reads the
//! demonstrated cell with weight 1 − λ and the anticipated one with weight λ. Counts are sums of weights over the
//! updates.
//!
//! **Parts of the distance.** The distance from the optimal policy T* is the sum over the C non-terminal cells of Σₐ
//! (T(a|s) − T*(a|s))² / 4C. Its parts are the sums over the demonstration's cells, over the others that the training
//! read, and over those that it never read, where all that is learned is what cells share.
//!
//! **Alignment.** q(s) is the share of a non-terminal cell in the reads of the non-terminal cells, and d(s) its share
//! in the expected visits, d(s) ∝ Σₜ P(sₜ = s), t from 0 to below Gymnasium's horizon, with sₜ where the policy moves
//! from at time t. Overlap is Σₛ min(q, d), in [0, 1]; divergence is KL(q || d) = Σₛ q log(q / d), nats, and none where
//! q > 0 = d.
//!
//! **Bias of the preference estimate** (Table 1 of *Intuitive Fine-Tuning*, arXiv 2405.11870). What an objective
//! teaches about the states at time n is weighed by a prior qₙ over cells, where ρₙ(s) = π_θ(sₙ, ρ₀) would be due, the
//! policy's own distribution:
//!
//! > biasₙ = ½ Σₛ |qₙ(s) − ρₙ(s)|, ρₙ(s) = P(sₙ = s | the episode still runs at n)
//!
//! and qₙ is the mean over the responses that still run at n of (1 − λ) δ(sₙ) + λ δ(s^θₙ), with λ = 0 but for
//! anticipated states. So all of it is on the demonstrated state for `sft`; half on the chosen and half on the rejected
//! one for methods on pairs as long as both run; and for methods that sample it is the empirical distribution of the
//! responses that one step learns from, sampled from the policy in question. The report has the mean over the times n
//! of the demonstration's moves, those left out at which no response, or no episode of the policy, runs any more. λ is
//! what it is after the warm-up and without noise. qₙ and ρₙ say where an objective looks, not in which direction it
//! pushes.
//!
//! **Probability of the demonstration** Πₙ π(a*ₙ|s*ₙ): what the policy itself gives to the whole trajectory, slips
//! aside.
//!
//! **Displacement.** log π of a trajectory is the sum over its moves, nats; margin is that of the chosen (the
//! demonstration) less that of the rejected trajectory. A run is displaced where the chosen one is less probable than
//! before although the margin grew: the rejected one fell further, and what both lost went elsewhere.
//!
//! **Bellman residual** of Vₜ = exp(−Lₜ), with Lₜ = Σ_{k≥t} −log π(a*ₖ|s*ₖ) undiscounted (A.3 of the paper):
//!
//! > maxₐ π(a|s*ₜ) Vₜ₊₁ − Vₜ = (maxₐ π(a|s*ₜ) − π(a*ₜ|s*ₜ)) Vₜ₊₁
//!
//! which is 0 exactly where the demonstrated action is greedy.
//!
//! **Gradient cosine** ⟨g, g'⟩ / (‖g‖ ‖g'‖) of two methods' gradients by all parameters at the same policy, each with
//! the data, the reference and the anticipation that it trains with; undefined where either gradient is zero. A method
//! that samples has one step's sample, all from the same streams of random numbers.

mod account;
mod measures;

use serde::{Serialize, Serializer};

use crate::measure::statistics::{Curve, Summary};
use crate::world::map::{Map, Trajectory};

pub(crate) use account::{Account, Observation, Subject};
use account::{OfRun, pairs};
pub use measures::{
    Reads, bellman_residuals, bias, cosine, distances, divergence, gradient, is_displaced, log_prob, overlap, priors,
    running, visitation,
};

/// Number of runs in which gradients are compared: each comparison takes the step of every method at two policies of
/// every method.
pub const COMPARED_RUNS: usize = 32;

/// Data through which a training step reads a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The trajectory to imitate.
    Demonstration,
    /// The cell after the policy's greedy action in a demonstrated state.
    Anticipation,
    /// The trajectory to avoid.
    Negatives,
    /// Episodes sampled from the policy.
    Rollouts,
}

/// Explanation of a method's result: summaries over runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Reads of the training steps by origin, without origins that have no reads.
    pub explored: Vec<Explored>,
    /// Share of the non-terminal cells that the training steps read, whatever the origin.
    pub reached: Summary,
    /// Parts of the distance from the optimal policy.
    pub distance: DistanceParts,
    /// Measurements at the policy before training.
    pub before: Standing<Summary, Cosine>,
    /// Measurements at the policy after training.
    pub trained: Standing<Summary, Cosine>,
    /// Probabilities of the chosen and the rejected trajectory during training; `None` if no method of the recipe reads
    /// the latter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displacement: Option<Displacement>,
}

/// Reads of the cells through data of one origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explored {
    /// Origin of the reads.
    pub origin: Origin,
    /// Reads of each cell, mean over runs.
    pub reads: Vec<f64>,
    /// Share of the non-terminal cells that were read.
    pub reached: Summary,
}

/// Distance from the optimal policy, in parts that add up to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DistanceParts {
    /// Contribution of the demonstration's cells.
    pub demonstrated: Summary,
    /// Contribution of the other cells that the training read.
    pub otherwise_read: Summary,
    /// Contribution of the cells that the training never read.
    pub unread: Summary,
    /// Contribution of each cell, mean over runs.
    pub by_cell: Vec<f64>,
}

/// Measurements at one policy, of one run or summarised over all runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing<Number, Agreement> {
    /// Overlap Σ min(q, d) of reads and visits; undefined if nothing was read.
    #[serde(serialize_with = "or_undefined")]
    pub overlap: Option<Number>,
    /// Divergence KL(q || d) of reads from visits, nats; undefined if nothing was read, or a cell that the policy never
    /// visits.
    #[serde(serialize_with = "or_undefined")]
    pub divergence: Option<Number>,
    /// Mean total variation distance between the states that the objective weights and those that the policy visits, in
    /// [0, 1]; undefined if there was nothing to learn from.
    #[serde(serialize_with = "or_undefined")]
    pub bias: Option<Number>,
    /// Probability of the demonstration under the policy, Π π(a*|s*).
    pub demonstration_probability: Number,
    /// Maximum Bellman residual along the demonstration.
    pub greatest_residual: Number,
    /// Mean Bellman residual along the demonstration.
    pub mean_residual: Number,
    /// Share d(s) of each cell in the policy's expected visits, mean over runs.
    pub visitation: Vec<f64>,
    /// Cosines for each pair of methods, in the recipe's order: (0, 1), (0, 2), (1, 2), (0, 3), ...
    pub cosines: Vec<Agreement>,
}

/// Agreement of two methods' gradients at a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cosine {
    /// Labels of the two methods.
    pub between: [String; 2],
    /// Mean of the cosine; undefined if there is no run in which both gradients differ from zero.
    #[serde(serialize_with = "or_undefined")]
    pub mean: Option<f64>,
    /// Half-width of the mean's 95% confidence interval; undefined for fewer than two runs.
    #[serde(serialize_with = "or_undefined")]
    pub ci95: Option<f64>,
    /// Number of runs in which both gradients differ from zero, among the first [`COMPARED_RUNS`].
    pub runs: usize,
}

/// Serializes a missing number as "undefined": JSON's null would not say whether it is missing or has no meaning.
pub(crate) fn or_undefined<T: Serialize, S: Serializer>(number: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => number.serialize(serializer),
        None => serializer.serialize_str("undefined"),
    }
}

/// Probabilities of the chosen and the rejected trajectory during training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Displacement {
    /// log π of the chosen trajectory, nats.
    pub chosen: Curve,
    /// log π of the rejected trajectory, nats.
    pub rejected: Curve,
    /// Change of the margin, chosen minus rejected, over the training, nats.
    pub margin_change: Summary,
    /// Share of the runs in which the chosen log-probability fell while the margin grew.
    pub displaced: f64,
}

impl Origin {
    /// All origins of reads.
    pub const ALL: [Origin; 4] = [Origin::Demonstration, Origin::Anticipation, Origin::Negatives, Origin::Rollouts];

    /// Name of the origin.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Demonstration => "demonstration",
            Origin::Anticipation => "anticipation",
            Origin::Negatives => "negatives",
            Origin::Rollouts => "rollouts",
        }
    }
}

/// Summarises the accounts of a method's runs, in the order of seeds; `labels` are those of the recipe's methods, and
/// `steps` the points of the curve.
pub(crate) fn summarise(
    map: &Map,
    demonstration: &Trajectory,
    accounts: &[&Account],
    labels: &[&str],
    steps: &[usize],
) -> Explanation {
    let non_terminal = map.non_terminal();
    let reached = |is_read: &dyn Fn(&Account, usize) -> bool| {
        let share = |account: &&Account| {
            let read = non_terminal.iter().filter(|cell| is_read(account, **cell)).count();
            read as f64 / non_terminal.len() as f64
        };
        Summary::new(accounts.iter().map(share).collect())
    };
    let explored = |origin: Origin| {
        let reads = mean_rows(accounts.iter().map(|account| account.reads.of(origin)));
        let explored =
            Explored { origin, reads, reached: reached(&|account, cell| account.reads.of(origin)[cell] > 0.0) };
        explored.reads.iter().any(|reads| *reads > 0.0).then_some(explored)
    };
    Explanation {
        explored: Origin::ALL.into_iter().filter_map(explored).collect(),
        reached: reached(&|account, cell| account.reads.any(cell)),
        distance: distance_parts(demonstration, accounts),
        before: summarise_standings(accounts.iter().map(|account| &account.before).collect(), labels),
        trained: summarise_standings(accounts.iter().map(|account| &account.trained).collect(), labels),
        displacement: displacement(accounts, steps),
    }
}

fn summarise_standings(standings: Vec<&OfRun>, labels: &[&str]) -> Standing<Summary, Cosine> {
    let all = |value: fn(&OfRun) -> f64| Summary::new(standings.iter().map(|standing| value(standing)).collect());
    // Runs without the number are skipped.
    let some = |value: fn(&OfRun) -> Option<f64>| known(standings.iter().filter_map(|standing| value(standing)));
    let cosine = |(place, pair): (usize, [usize; 2])| {
        let summary = known(standings.iter().filter_map(|standing| *standing.cosines.get(place)?));
        Cosine {
            between: pair.map(|method| labels[method].to_owned()),
            mean: summary.as_ref().map(|summary| summary.mean),
            ci95: summary.as_ref().and_then(|summary| summary.ci95),
            runs: summary.map_or(0, |summary| summary.per_seed.len()),
        }
    };
    Standing {
        overlap: some(|standing| standing.overlap),
        divergence: some(|standing| standing.divergence),
        bias: some(|standing| standing.bias),
        demonstration_probability: all(|standing| standing.demonstration_probability),
        greatest_residual: all(|standing| standing.greatest_residual),
        mean_residual: all(|standing| standing.mean_residual),
        visitation: mean_rows(standings.iter().map(|standing| &*standing.visitation)),
        cosines: pairs(labels.len()).enumerate().map(cosine).collect(),
    }
}

fn distance_parts(demonstration: &Trajectory, accounts: &[&Account]) -> DistanceParts {
    let sum = |is_part: &dyn Fn(bool, bool) -> bool| {
        let part = |account: &&Account| {
            let distances = account.distances.iter().enumerate();
            let of_part = distances
                .filter(|(cell, _)| is_part(demonstration.cells.contains(cell), account.reads.any(*cell)))
                .map(|(_, distance)| distance);
            // The `sum` of no numbers would be −0.
            of_part.fold(0.0, |sum, distance| sum + distance)
        };
        Summary::new(accounts.iter().map(part).collect())
    };
    DistanceParts {
        demonstrated: sum(&|demonstrated, _| demonstrated),
        otherwise_read: sum(&|demonstrated, read| !demonstrated && read),
        unread: sum(&|demonstrated, read| !demonstrated && !read),
        by_cell: mean_rows(accounts.iter().map(|account| &*account.distances)),
    }
}

fn displacement(accounts: &[&Account], steps: &[usize]) -> Option<Displacement> {
    let curves: Vec<_> = accounts.iter().map(|account| &account.log_probs).collect();
    let ends: Vec<_> = curves.iter().filter_map(|curve| Some((*curve.first()?, *curve.last()?))).collect();
    if ends.is_empty() {
        return None;
    }
    let curve = |trajectory: usize| {
        let points = 0..steps.len();
        let summaries: Vec<_> =
            points.map(|point| Summary::new(curves.iter().map(|curve| curve[point][trajectory]).collect())).collect();
        Curve {
            steps: steps.to_vec(),
            mean: summaries.iter().map(|summary| summary.mean).collect(),
            ci95: summaries.iter().map(|summary| summary.ci95).collect(),
        }
    };
    let change = |(before, trained): &([f64; 2], [f64; 2])| (trained[0] - trained[1]) - (before[0] - before[1]);
    let displaced = ends.iter().filter(|(before, trained)| is_displaced(*before, *trained)).count();
    Some(Displacement {
        chosen: curve(0),
        rejected: curve(1),
        margin_change: Summary::new(ends.iter().map(change).collect()),
        displaced: displaced as f64 / ends.len() as f64,
    })
}

/// Summary of at least one value.
fn known(values: impl Iterator<Item = f64>) -> Option<Summary> {
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| Summary::new(values))
}

/// Mean of at least one row, element by element.
fn mean_rows<'a>(rows: impl ExactSizeIterator<Item = &'a [f64]>) -> Vec<f64> {
    let (count, mut sums) = (rows.len() as f64, Vec::new());
    for row in rows {
        sums.resize(row.len(), 0.0);
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| sum / count).collect()
}
