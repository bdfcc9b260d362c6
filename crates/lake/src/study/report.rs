//! What a study found, as typed rows: `analysis` says what the numbers mean, `summary` shows them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Question, Study};

/// What a study found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyReport {
    /// The program's version that trained.
    pub version: String,
    /// The study.
    pub study: Study,
    /// What was trained.
    pub scale: Scale,
    /// Runs that diverged, by method.
    pub diverged: BTreeMap<String, usize>,
    /// The claimed order.
    pub order: OrderReport,
    /// Every two of its methods, in the claimed order.
    pub pairs: Vec<PairReport>,
    /// Answers to the study's questions.
    pub questions: Vec<Answer>,
}

/// How much was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Scale {
    /// Designs.
    pub designs: usize,
    /// Runs, over designs, methods and seeds.
    pub runs: usize,
    /// Readings of each method.
    pub readings: usize,
}

/// A share of readings, and its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Designs that it is over.
    pub designs: usize,
    /// The share.
    pub share: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// A mean over designs, and the half-width of its 95% interval; none for a single design.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The half-width.
    pub ci95: Option<f64>,
}

/// How often an order holds, and what that depends on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OrderReport {
    /// Labels, least distance first.
    pub order: Vec<String>,
    /// Readings in which it holds by means.
    pub holds: Share,
    /// Readings in which every link is significant.
    pub significant: Share,
    /// What it depends on, the strongest first.
    pub effects: Vec<Effect>,
    /// Where it holds most often.
    pub region: Region,
    /// Readings in which it holds most clearly.
    pub examples: Vec<Example>,
}

/// How often one method ends closer than another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// The method that is claimed to end closer.
    pub closer: String,
    /// The other.
    pub further: String,
    /// Readings in which it does by the mean.
    pub holds: Share,
    /// Significantly.
    pub significant: Share,
    /// Readings in which it ends further away significantly.
    pub reversed: Share,
    /// Distance of the one that is claimed to be further, less that of the other.
    pub difference: Estimate,
    /// What the order depends on, the strongest first.
    pub effects: Vec<Effect>,
}

/// A factor's part in whether an order holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The factor.
    pub factor: String,
    /// η²: the share of the variance that its levels explain.
    pub explained: f64,
    /// By level.
    pub levels: Vec<LevelEffect>,
}

/// A level's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelEffect {
    /// The level.
    pub level: String,
    /// How often the order holds there.
    pub holds: Share,
    /// How often significantly.
    pub significant: Share,
    /// The last method's distance less the first one's there.
    pub difference: Estimate,
}

/// Levels at which an order holds most often: added one by one, each the one that raises the share most, on the designs of even
/// number; measured on those of odd number, which had no part in that.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Region {
    /// Factors and their levels.
    pub levels: Vec<(String, String)>,
    /// The share among the designs that it was found on.
    pub found: Share,
    /// The share among the others.
    pub confirmed: Share,
    /// The same of readings in which every link is significant.
    pub confirmed_significant: Share,
}

/// A reading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The design.
    pub design: usize,
    /// The stop.
    pub stop: String,
    /// The distance.
    pub distance: String,
    /// The least of the links' differences by the half-widths of their intervals: above 1, all are significant.
    pub clarity: f64,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// By the levels of the question's factor, or in all.
    pub levels: Vec<LevelAnswer>,
    /// Readings in which the order holds most clearly.
    pub examples: Vec<Example>,
}

/// An answer at a level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelAnswer {
    /// The level; none where the question names no factor.
    pub level: Option<String>,
    /// How often the order holds.
    pub holds: Share,
    /// How often every link is significant.
    pub significant: Share,
    /// How often the reverse of the order holds significantly.
    pub reversed: Share,
    /// The last method's distance less the first one's.
    pub difference: Estimate,
    /// The same by the greater of the two distances: least and greatest of any reading.
    pub relative: (f64, f64),
    /// The median of the first one's standard deviation over seeds by the last one's.
    pub spread: f64,
}
