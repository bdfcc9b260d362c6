//! Figure of a comparison: the scores of each benchmark below each other, with their 95% intervals.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use program::figure::{Area, Drawn, FAINT, INK, heading, label, svg};
use program::look::Look;

use super::{Comparison, Row, Score};
use crate::error::EvaluationError;

/// Half-width of a 95% interval of a normally distributed mean, in standard errors.
const WIDTH: f64 = 1.96;
/// Height of the heading.
const UPPER: i32 = 72;
/// Distance between neighbouring scores.
const STEP: i32 = 18;
/// Extra distance between benchmarks.
const TITLE: i32 = 34;
/// Width of the figure.
const WHOLE: u32 = 760;

/// Draws a comparison as SVG.
///
/// # Errors
///
/// [`EvaluationError::Figure`] if the drawing library fails.
pub fn draw(comparison: &Comparison) -> Result<String, EvaluationError> {
    let groups = comparison.benchmarks.len() as i32 + 1;
    let height = UPPER + groups * (TITLE + STEP * comparison.rows.len() as i32) + 40;
    svg((WHOLE, height as u32), |area| scores(area, comparison))
        .map_err(|error| EvaluationError::Figure { problem: error.to_string() })
}

fn scores(area: &Area<'_>, comparison: &Comparison) -> Drawn {
    let Comparison { benchmarks, rows, .. } = comparison;
    heading(area, "Benchmarks by method", "percent, with 95% intervals where there are standard errors")?;
    let text = label(12, INK, HPos::Left, VPos::Center);
    let mut widest = 0;
    for row in rows {
        widest = widest.max(area.estimate_text_size(&row.name, &text)?.0 as i32);
    }
    let left = 60 + widest;
    let right = WHOLE as i32 - 70;
    let x = |share: f64| left + (share.clamp(0.0, 1.0) * f64::from(right - left)).round() as i32;
    let bottom = UPPER + (benchmarks.len() as i32 + 1) * (TITLE + STEP * rows.len() as i32);
    for percent in (0..=100).step_by(20) {
        let at = x(f64::from(percent) / 100.0);
        area.draw(&PathElement::new([(at, UPPER), (at, bottom)], FAINT))?;
        area.draw(&Text::new(percent.to_string(), (at, bottom + 8), label(11, INK, HPos::Center, VPos::Top)))?;
    }
    let mut y = UPPER;
    for (group, title) in benchmarks.iter().copied().chain(["average"]).enumerate() {
        area.draw(&Text::new(title.to_owned(), (20, y + 14), label(13, INK, HPos::Left, VPos::Center)))?;
        y += TITLE - 6;
        for row in rows {
            let (look, middle) = (Look::of(&row.name), y + STEP / 2);
            area.draw(&Text::new(row.name.clone(), (44, middle), text.clone()))?;
            look.mark(area, (30, middle))?;
            y += STEP;
            let Some(Score { mean, stderr }) = score(row, group) else { continue };
            if let Some(stderr) = stderr {
                let ends = [mean - WIDTH * stderr, mean + WIDTH * stderr].map(|end| (x(end), middle));
                area.draw(&PathElement::new(ends, look.colour.stroke_width(2)))?;
            }
            look.mark(area, (x(mean), middle))?;
            let percent = format!("{:.1}", 100.0 * mean);
            area.draw(&Text::new(percent, (right + 12, middle), label(11, INK, HPos::Left, VPos::Center)))?;
        }
        y += 6;
    }
    Ok(())
}

fn score(row: &Row, group: usize) -> Option<Score> {
    row.scores.get(group).copied().unwrap_or(row.average)
}
