//! Result of a comparison, as `judgement.json` and as a table.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use program::outcome::printable;
use program::{OutputError, OutputFolder};
use serde::Serialize;

use super::question::Pair;
use super::rates::{Controlled, Counts, Rate, Rates, length};
use super::verdict::Verdict;
use super::verdicts::Asked;
use crate::error::EvaluationError;
use crate::outputs::Outputs;

/// Name of the file with the result of a comparison.
pub const JUDGEMENT_FILE: &str = "judgement.json";

/// One of the two models.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// File of the model's answers.
    pub path: PathBuf,
    /// Name of the model, if the file has one.
    pub generator: Option<String>,
    /// Mean length of an answer, in characters.
    pub mean_length: f64,
}

/// Result of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// The first model, to which the rates belong.
    pub a: Side,
    /// The second model.
    pub b: Side,
    /// Settings that determined every question and answer.
    pub asked: Asked,
    /// Names of the models that answered, as the judge reports them.
    pub models: BTreeSet<String>,
    /// Rates computed from the verdicts.
    #[serde(flatten)]
    pub rates: Rates,
    /// Versions of the programs that wrote the result.
    pub versions: Versions,
}

/// Versions of the programs that wrote a result.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// Version of `lm`.
    pub lm: &'static str,
}

impl Judgement {
    /// Computes the result of the verdicts on these pairs.
    pub(super) fn new(a: &Outputs, b: &Outputs, asked: Asked, pairs: &[Pair<'_>], verdicts: &[Verdict]) -> Self {
        Self {
            a: Side::new(a),
            b: Side::new(b),
            asked,
            models: verdicts.iter().map(|verdict| verdict.model.clone()).collect(),
            rates: Rates::new(pairs, verdicts),
            versions: Versions { lm: env!("CARGO_PKG_VERSION") },
        }
    }

    /// Writes `judgement.json`.
    pub(super) fn write(&self, out: &OutputFolder) -> Result<(), EvaluationError> {
        let path = out.path().join(JUDGEMENT_FILE);
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| OutputError { path, source: source.into() })?;
        out.write(JUDGEMENT_FILE, &bytes)?;
        Ok(())
    }
}

impl Side {
    fn new(outputs: &Outputs) -> Self {
        let lengths: f64 = outputs.answers.iter().map(|(_, answer)| length(&answer.output)).sum();
        Self {
            path: outputs.path.clone(),
            generator: outputs.generator.clone(),
            mean_length: lengths / outputs.answers.len() as f64,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.generator {
            Some(generator) => write!(f, "{} ({path})", printable(generator))?,
            None => write!(f, "{path}")?,
        }
        write!(f, ", {:.0} characters an answer", self.mean_length)
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { counts, win_rate, length_controlled, disagreement, first } = &self.rates;
        let Counts { pairs, judged, a, b, tie, unparsable } = counts;
        writeln!(f, "A: {}", self.a)?;
        writeln!(f, "B: {}", self.b)?;
        writeln!(
            f,
            "{judged} of {pairs} pairs judged: {a} verdicts for A, {b} for B, {tie} ties, {unparsable} unparsable"
        )?;
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["", "%", "95% interval"]);
        let percent = |rate: f64| format!("{:.1}", 100.0 * rate);
        let (controlled, why) = match length_controlled {
            Controlled::Fitted { rate, interval, .. } => (Some(Rate { rate: *rate, interval: Some(*interval) }), None),
            Controlled::None { none } => (None, Some(none)),
        };
        for (name, rate) in [
            ("A preferred", *win_rate),
            ("A preferred, lengths controlled", controlled),
            ("orders disagree", *disagreement),
            ("first shown preferred", *first),
        ] {
            let none = || "none".to_owned();
            let interval = rate.and_then(|rate| rate.interval);
            let interval = interval.map_or_else(none, |[low, high]| format!("{} to {}", percent(low), percent(high)));
            table.add_row([name.to_owned(), rate.map_or_else(none, |rate| percent(rate.rate)), interval]);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "\n{}", table.trim_fmt())?;
        why.map_or(Ok(()), |why| writeln!(f, "\nno rate with lengths controlled: {why}"))
    }
}
