//! What came out of a comparison, as `judgement.json` and as a table.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use program::OutputFolder;
use program::outcome::printable;
use serde::Serialize;

use super::journal::Asked;
use super::question::Pair;
use super::rates::{Controlled, Counts, Rate, Rates, length};
use super::verdict::Verdict;
use crate::error::LmError;
use crate::outputs::Outputs;

/// What came out of a comparison.
pub const JUDGEMENT_FILE: &str = "judgement.json";

/// One of the two models.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The file of its answers.
    pub path: PathBuf,
    /// Its name, where the file says it.
    pub generator: Option<String>,
    /// Characters of an answer, on average.
    pub mean_length: f64,
}

/// What came out of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// The first model, whose rates they are.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// What decided every question and answer.
    pub asked: Asked,
    /// The models that answered, as the judge names them.
    pub models: BTreeSet<String>,
    /// What the verdicts say.
    #[serde(flatten)]
    pub rates: Rates,
    /// What wrote this.
    pub versions: Versions,
}

/// What wrote a judgement.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This program.
    pub lm: &'static str,
}

impl Judgement {
    /// Of the verdicts on these pairs.
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
    pub(super) fn write(&self, out: &OutputFolder) -> Result<(), LmError> {
        let path = out.path().join(JUDGEMENT_FILE);
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| LmError::File { path, source: source.into() })?;
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
