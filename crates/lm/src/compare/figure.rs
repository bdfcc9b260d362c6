//! The comparison as a figure: each benchmark's scores side by side, with their 95% intervals.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use program::figure::{Area, COLOURS, Drawn, FAINT, INK, heading, label, svg};

use super::{Comparison, Row, Score};
use crate::error::LmError;

/// How many standard errors a 95% interval of a mean of many is wide to each side.
const WIDTH: f64 = 1.96;
/// Left, right, upper and lower margins, in units of the drawing.
const MARGINS: [i32; 4] = [56, 20, 92, 44];

/// The SVG of a comparison.
///
/// # Errors
///
/// [`LmError::Figure`].
pub fn draw(comparison: &Comparison) -> Result<String, LmError> {
    let groups = comparison.benchmarks.len() as u32 + 1;
    let width = (76 + groups * (48 + 18 * comparison.rows.len() as u32)).max(480);
    svg((width, 420), |area| scores(area, comparison)).map_err(|error| LmError::Figure { problem: error.to_string() })
}

fn scores(area: &Area<'_>, comparison: &Comparison) -> Drawn {
    let Comparison { benchmarks, rows, .. } = comparison;
    heading(area, "Benchmarks by method", "percent, with 95% intervals where there are standard errors")?;
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    let [left, right, upper, lower] = MARGINS;
    let y = |share: f64| height - lower - (share * f64::from(height - upper - lower)).round() as i32;
    for percent in (0..=100).step_by(20) {
        let at = y(f64::from(percent) / 100.0);
        area.draw(&PathElement::new(vec![(left, at), (width - right, at)], FAINT))?;
        area.draw(&Text::new(percent.to_string(), (left - 8, at), label(11, INK, HPos::Right, VPos::Center)))?;
    }
    let mut at = left;
    for (index, row) in rows.iter().enumerate() {
        let name = Text::new(row.name.clone(), (at + 10, 64), label(11, INK, HPos::Left, VPos::Center));
        area.draw(&Circle::new((at + 2, 64), 4, colour(index).filled()))?;
        area.draw(&name)?;
        at += 28 + area.estimate_text_size(&row.name, &label(11, INK, HPos::Left, VPos::Center))?.0 as i32;
    }
    let groups = benchmarks.len() + 1;
    let step = f64::from(width - left - right) / groups as f64;
    for (group, title) in benchmarks.iter().copied().chain(["average"]).enumerate() {
        let middle = f64::from(left) + step * (group as f64 + 0.5);
        let style = label(12, INK, HPos::Center, VPos::Top);
        area.draw(&Text::new(title.to_owned(), (middle as i32, height - lower + 12), style))?;
        let between = (step * 0.8 / rows.len() as f64).min(22.0);
        for (index, row) in rows.iter().enumerate() {
            let Some(Score { mean, stderr }) = score(row, group) else { continue };
            let x = (middle + between * (index as f64 - (rows.len() as f64 - 1.0) / 2.0)).round() as i32;
            if let Some(stderr) = stderr {
                let ends = [mean - WIDTH * stderr, mean + WIDTH * stderr].map(|end| (x, y(end.clamp(0.0, 1.0))));
                area.draw(&PathElement::new(ends.to_vec(), colour(index).stroke_width(2)))?;
            }
            area.draw(&Circle::new((x, y(mean)), 4, colour(index).filled()))?;
        }
    }
    Ok(())
}

fn score(row: &Row, group: usize) -> Option<Score> {
    row.scores.get(group).copied().unwrap_or(row.average)
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}
