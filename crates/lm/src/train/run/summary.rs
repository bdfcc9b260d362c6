//! Summary of each stage of a run, from the metrics of its first and last steps.

use std::fmt;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::METRICS;
use crate::error::LmError;
use crate::train::recipe::Recipe;

/// Metric with the fraction of pairs whose chosen response has the greater implicit reward.
pub const ACCURACY: &str = "rewards/accuracies";

/// Summary of a run, stage by stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary(Vec<StageSummary>);

/// Summary of one stage.
#[derive(Clone, Debug, Default, PartialEq)]
struct StageSummary {
    method: &'static str,
    steps: u64,
    loss: Option<Change>,
    held_out_loss: Option<Change>,
    accuracy: Option<Change>,
    held_out_accuracy: Option<Change>,
}

/// A number at the beginning and at the end of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    first: f64,
    last: f64,
}

impl Change {
    fn follow(change: &mut Option<Self>, value: Option<&Value>) {
        let Some(value) = value.and_then(Value::as_f64) else { return };
        *change = Some(Self { first: change.map_or(value, |change| change.first), last: value });
    }
}

impl Summary {
    /// Reads the metrics in a run's folder.
    ///
    /// # Errors
    ///
    /// [`LmError::File`]; [`LmError::Json`] for an invalid line.
    pub fn read(out: &Path, recipe: &Recipe) -> Result<Self, LmError> {
        let path = out.join(METRICS);
        let text = std::fs::read_to_string(&path).map_err(|source| LmError::File { path: path.clone(), source })?;
        let name = |stage: &crate::train::recipe::Stage| stage.method.method().name;
        let mut stages: Vec<_> =
            recipe.stage.iter().map(|stage| StageSummary { method: name(stage), ..StageSummary::default() }).collect();
        for line in text.lines() {
            let row: Value = strict_json::from_str(line).map_err(|source| LmError::Json {
                path: path.clone(),
                field: "line".to_owned(),
                source,
            })?;
            let index = row["stage"].as_u64().and_then(|index| usize::try_from(index).ok());
            let Some(stage) = index.and_then(|index| stages.get_mut(index)) else { continue };
            let (loss, accuracy) = match row["held_out"] == true {
                true => (&mut stage.held_out_loss, &mut stage.held_out_accuracy),
                false => {
                    stage.steps += 1;
                    (&mut stage.loss, &mut stage.accuracy)
                }
            };
            Change::follow(loss, row.get("loss"));
            Change::follow(accuracy, row.get(ACCURACY));
        }
        Ok(Self(stages))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} → {:.4}", self.first, self.last)
    }
}

/// Formats a table with a row for each stage, without the columns that no stage has.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        type Column = (&'static str, fn(&StageSummary) -> Option<Change>);
        let columns: [Column; 4] = [
            ("loss", |stage| stage.loss),
            ("held-out loss", |stage| stage.held_out_loss),
            ("reward accuracy", |stage| stage.accuracy.filter(|_| stage.held_out_accuracy.is_none())),
            ("held-out accuracy", |stage| stage.held_out_accuracy),
        ];
        let columns: Vec<_> =
            columns.into_iter().filter(|(_, of)| self.0.iter().any(|stage| of(stage).is_some())).collect();
        let mut table = Table::new();
        let header = ["stage", "steps"].into_iter().chain(columns.iter().map(|(name, _)| *name));
        table.load_style(presets::NOTHING).set_header(header);
        for (index, stage) in self.0.iter().enumerate() {
            let changes = columns.iter().map(|(_, of)| of(stage).map_or_else(String::new, |change| change.to_string()));
            let start = [format!("{} {}", index + 1, stage.method), stage.steps.to_string()];
            table.add_row(start.into_iter().chain(changes));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        write!(f, "{}", table.trim_fmt())
    }
}
