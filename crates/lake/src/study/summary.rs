//! Text and figures of a study's report. Nothing is computed here: rows are those of the report.

use std::fmt::Write;

use comfy_table::{Table, presets};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use program::figure::{Area, COLOURS, Drawn, FAINT, INK, heading, label, readable_on};

use super::report::{Answer, Effect, Estimate, LevelAnswer, PairReport, Share, StudyReport};
use crate::error::LakeError;
use crate::figures::{Figure, figure, shade};
use crate::fitted;
use crate::number::{fixed, signed};

/// Number of factors whose levels are listed for each order, and drawn.
const STRONGEST: usize = 6;

/// Layout of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Markdown, with one line per row.
    Markdown,
    /// Text for a terminal of limited width.
    Terminal {
        /// Number of columns of the terminal.
        columns: usize,
    },
}

/// The report as text.
pub fn page(report: &StudyReport, layout: Layout) -> String {
    match layout {
        Layout::Markdown => whole_page(report, layout),
        // Tables fit already; the text between them is wrapped.
        Layout::Terminal { columns } => fitted::text(&whole_page(report, layout), columns),
    }
}

fn whole_page(report: &StudyReport, layout: Layout) -> String {
    let order = report.order.order.join(" < ");
    let mut page = format!("# {order}\n\n{}\n\n", setting(report));
    let diverged: Vec<_> = report.diverged.iter().map(|(method, runs)| format!("{method} {runs}")).collect();
    let _ = writeln!(
        page,
        "Runs that diverged: {}. Designs in which a run of a method diverged have no readings of it.",
        diverged.join(", ")
    );

    let _ = writeln!(
        page,
        "\n## How often it holds\n\n{}",
        table(
            layout,
            1,
            &["order", "holds", "significantly", "reversed significantly", "difference"],
            std::iter::once(vec![
                order.clone(),
                percent(&report.order.holds),
                percent(&report.order.significant),
                String::new(),
                String::new()
            ])
            .chain(report.pairs.iter().map(|pair| {
                vec![
                    format!("{} < {}", pair.closer, pair.further),
                    percent(&pair.holds),
                    percent(&pair.significant),
                    percent(&pair.reversed),
                    estimate(&pair.difference),
                ]
            }))
        )
    );
    let _ = writeln!(page, "## Where the whole order holds\n");
    let region = &report.order.region;
    let levels: Vec<_> = region.levels.iter().map(|(factor, level)| format!("{factor} = {level}")).collect();
    let levels = if levels.is_empty() { "no factor is held".to_owned() } else { levels.join(", ") };
    let _ = writeln!(
        page,
        "Most often where {levels}: {} of the designs that this was found on, {} of the others, {} significantly.\n",
        percent(&region.found),
        percent(&region.confirmed),
        percent(&region.confirmed_significant)
    );
    let examples = report.order.examples.iter().map(|example| {
        let clarity = format!("{:.2}", example.clarity);
        vec![example.design.to_string(), example.stop.clone(), example.distance.clone(), clarity]
    });
    let _ = writeln!(
        page,
        "Its clearest readings (the least difference between neighbours by the half-width of its interval):\n\n{}",
        table(layout, 1, &["design", "stop", "distance", "clarity"], examples)
    );
    let _ = writeln!(
        page,
        "## What it depends on\n\nShares of the variance that a factor's levels explain.\n\n{}",
        explained(report, layout)
    );
    effects(&mut page, layout, &order, &report.order.effects);
    for pair in &report.pairs {
        effects(&mut page, layout, &format!("{} < {}", pair.closer, pair.further), &pair.effects);
    }
    if !report.questions.is_empty() {
        page += "## Claims\n\nDifference: the last method's distance less the first one's; relative: the same by the greater of \
                 the two, least and greatest of any reading. Spread: the median of the first one's standard deviation over seeds by the last one's.\n\n";
        report.questions.iter().for_each(|answer| claim(&mut page, layout, answer));
    }
    page
}

fn setting(report: &StudyReport) -> String {
    let scale = &report.scale;
    format!(
        "{} designs, {} runs, {} readings of each method; intervals are 95%.",
        scale.designs, scale.runs, scale.readings
    )
}

/// Effect size η² of every factor for every order.
fn explained(report: &StudyReport, layout: Layout) -> String {
    let orders = orders(report);
    let header: Vec<_> = std::iter::once("factor").chain(orders.iter().map(|(name, _)| name.as_str())).collect();
    let rows = report.order.effects.iter().map(|effect| {
        let of = |effects: &[Effect]| {
            let same = effects.iter().find(|other| other.factor == effect.factor);
            same.map_or(String::new(), |effect| format!("{:.1}%", 100.0 * effect.explained))
        };
        std::iter::once(effect.factor.clone()).chain(orders.iter().map(|(_, effects)| of(effects))).collect()
    });
    table(layout, 1, &header, rows)
}

/// The whole order and every pair, with the effects of factors on each.
fn orders(report: &StudyReport) -> Vec<(String, &[Effect])> {
    let pair = |pair: &'_ PairReport| format!("{} < {}", pair.closer, pair.further);
    std::iter::once(("all".to_owned(), report.order.effects.as_slice()))
        .chain(report.pairs.iter().map(|of| (pair(of), of.effects.as_slice())))
        .collect()
}

fn effects(page: &mut String, layout: Layout, order: &str, effects: &[Effect]) {
    let rows = effects.iter().take(STRONGEST).flat_map(|effect| {
        effect.levels.iter().map(|level| {
            vec![
                effect.factor.clone(),
                level.level.clone(),
                percent(&level.holds),
                percent(&level.significant),
                estimate(&level.difference),
            ]
        })
    });
    let header = ["factor", "level", "holds", "significantly", "difference"];
    let _ = writeln!(page, "### {order}\n\n{}", table(layout, 2, &header, rows));
}

fn claim(page: &mut String, layout: Layout, answer: &Answer) {
    let question = &answer.question;
    let subset: Vec<_> = question
        .subset
        .iter()
        .map(|(factor, selected)| format!("{factor} = {}", selected.levels().join(" or ")))
        .collect();
    let subset = if subset.is_empty() { "all designs".to_owned() } else { subset.join(", ") };
    let by = question.by.as_deref().unwrap_or("");
    let header =
        [by, "designs", "holds", "significantly", "reversed significantly", "difference", "relative", "spread"];
    let rows = answer.levels.iter().filter(|level| level.holds.designs > 0).map(|level: &LevelAnswer| {
        vec![
            level.level.clone().unwrap_or_else(|| "all".to_owned()),
            level.holds.designs.to_string(),
            percent(&level.holds),
            percent(&level.significant),
            percent(&level.reversed),
            estimate(&level.difference),
            format!("{}% to {}%", signed(100.0 * level.relative.0, 1), signed(100.0 * level.relative.1, 1)),
            format!("{:.2}", level.spread),
        ]
    });
    let (claim, order) = (&question.claim, question.order.join(" < "));
    let _ = writeln!(page, "### {claim}\n\n{order}, {subset}.\n\n{}", table(layout, 1, &header, rows));
}

/// A table whose rows are identified by the first `keys` columns.
fn table(layout: Layout, keys: usize, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    if let Layout::Terminal { columns } = layout {
        return fitted::keyed_table(header, &rows.collect::<Vec<_>>(), keys, columns) + "\n";
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    rows.for_each(|row| {
        table.add_row(row);
    });
    table.to_string() + "\n"
}

fn percent(share: &Share) -> String {
    format!("{:.1}% ({:.1} to {:.1})", 100.0 * share.share, 100.0 * share.low, 100.0 * share.high)
}

fn estimate(estimate: &Estimate) -> String {
    match estimate.ci95 {
        Some(ci95) => format!("{} ± {}", signed(estimate.mean, 4), fixed(ci95, 4)),
        None => signed(estimate.mean, 4),
    }
}

/// Draws the figures: the frequency of each order of two, the factors that the orders depend on, and the frequency of
/// the whole order.
///
/// # Errors
///
/// [`LakeError::Figure`] naming the figure.
pub fn figures(report: &StudyReport) -> Result<Vec<Figure>, LakeError> {
    let rows = report.order.effects.len() as u32;
    let levels: usize = report.order.effects.iter().take(STRONGEST).map(|effect| effect.levels.len()).sum();
    Ok(vec![
        figure("pairs", (760, 120 + 44 * report.pairs.len() as u32), |area| pairs(area, report))?,
        figure("effects", (220 + 104 * (1 + report.pairs.len() as u32), 150 + 36 * rows), |area| heat(area, report))?,
        figure("order", (760, 130 + 22 * levels as u32), |area| whole(area, report))?,
    ])
}

/// One bar per order of two: closer significantly, closer, equal or further, further significantly.
fn pairs(area: &Area<'_>, report: &StudyReport) -> Drawn {
    heading(area, "How often the claimed order of two methods holds", &setting(report))?;
    let (left, width, top) = (150, 570, 66);
    let colours = [COLOURS[0], COLOURS[5], RGBColor(243, 203, 170), COLOURS[4]];
    for (place, pair) in (0..).zip(&report.pairs) {
        let y = top + 44 * place;
        let name = format!("{} < {}", pair.closer, pair.further);
        area.draw(&Text::new(name, (left - 12, y + 14), label(13, INK, HPos::Right, VPos::Center)))?;
        let ends = [0.0, pair.significant.share, pair.holds.share, 1.0 - pair.reversed.share, 1.0];
        let at = |share: f64| left + (share * f64::from(width)).round() as i32;
        for (ends, colour) in ends.windows(2).zip(colours) {
            area.draw(&Rectangle::new([(at(ends[0]), y), (at(ends[1]), y + 28)], colour.filled()))?;
        }
        let (low, high) = (at(pair.holds.low), at(pair.holds.high));
        area.draw(&PathElement::new([(low, y + 14), (high, y + 14)], INK.stroke_width(3)))?;
        let text = format!("{:.0}%", 100.0 * pair.holds.share);
        area.draw(&Text::new(text, (left + width + 8, y + 14), label(12, INK, HPos::Left, VPos::Center)))?;
    }
    let y = top + 44 * report.pairs.len() as i32 + 4;
    let names = ["as claimed, significantly", "as claimed", "not as claimed", "reversed, significantly"];
    for (place, (name, colour)) in (0..).zip(names.into_iter().zip(colours)) {
        let x = left + place * 150;
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour.filled()))?;
        area.draw(&Text::new(name, (x + 18, y + 6), label(11, INK, HPos::Left, VPos::Center)))?;
    }
    Ok(())
}

/// Effect sizes η² by factor and order, each with its interval.
fn heat(area: &Area<'_>, report: &StudyReport) -> Drawn {
    heading(area, "Share of the variance of whether an order holds that a factor explains", &setting(report))?;
    let (left, top, width, height) = (190, 96, 104, 36);
    let orders = orders(report);
    let most = orders.iter().flat_map(|(_, effects)| effects.iter()).map(|e| e.explained).fold(1e-9, f64::max);
    // Makes small shares distinguishable too.
    let amount = |explained: f64| (explained / most).sqrt();
    for (column, (name, effects)) in (0..).zip(&orders) {
        let x = left + column * width;
        area.draw(&Text::new(name.clone(), (x + width / 2, top - 12), label(12, INK, HPos::Center, VPos::Center)))?;
        for (row, factor) in (0..).zip(&report.order.effects) {
            let y = top + row * height;
            if column == 0 {
                let place = (left - 10, y + height / 2);
                area.draw(&Text::new(factor.factor.clone(), place, label(12, INK, HPos::Right, VPos::Center)))?;
            }
            let Some(effect) = effects.iter().find(|effect| effect.factor == factor.factor) else { continue };
            let colour = shade(amount(effect.explained));
            let square = [(x + 1, y + 1), (x + width - 1, y + height - 1)];
            area.draw(&Rectangle::new(square, colour.filled()))?;
            let text = |size: u32| label(size, readable_on(colour), HPos::Center, VPos::Center);
            let (low, high) = effect.interval();
            let of = [100.0 * effect.explained, 100.0 * low, 100.0 * high].map(|percent| fixed(percent, 1));
            area.draw(&Text::new(format!("{}%", of[0]), (x + width / 2, y + 12), text(12)))?;
            area.draw(&Text::new(format!("{} to {}", of[1], of[2]), (x + width / 2, y + 26), text(10)))?;
        }
    }
    // The key: the colours of the shares from none to the greatest.
    let (y, length) = (top + height * report.order.effects.len() as i32 + 16, 200);
    for place in 0..length {
        let colour = shade(amount(most * f64::from(place) / f64::from(length - 1)));
        area.draw(&Rectangle::new([(left + place, y), (left + place + 1, y + 10)], colour.filled()))?;
    }
    for quarter in 0..=4 {
        let share = most * f64::from(quarter) / 4.0;
        let place = (left + length * quarter / 4, y + 14);
        area.draw(&Text::new(format!("{:.0}%", 100.0 * share), place, label(10, INK, HPos::Center, VPos::Top)))?;
    }
    area.draw(&Text::new("share explained", (left - 10, y + 5), label(11, INK, HPos::Right, VPos::Center)))?;
    Ok(())
}

/// Share of the whole order by level of the strongest factors.
fn whole(area: &Area<'_>, report: &StudyReport) -> Drawn {
    let title = format!("How often {} holds, by level of the strongest factors", report.order.order.join(" < "));
    heading(area, &title, &setting(report))?;
    let strongest = || report.order.effects.iter().take(STRONGEST);
    let shares = strongest().flat_map(|effect| &effect.levels).map(|level| level.holds.high);
    let most = shares.fold(1e-9, f64::max);
    let (left, width, top) = (380, 340, 76);
    let at = |share: f64| left + (share / most * f64::from(width)).round() as i32;
    let all = at(report.order.holds.share);
    let rows: i32 = strongest().map(|effect| effect.levels.len() as i32).sum();
    area.draw(&PathElement::new([(all, top - 8), (all, top + 22 * rows)], FAINT.stroke_width(2)))?;
    let text = format!("all designs {:.1}%", 100.0 * report.order.holds.share);
    area.draw(&Text::new(text, (all, top - 14), label(11, INK, HPos::Center, VPos::Center)))?;
    let mut row = 0;
    for (place, effect) in strongest().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        for (number, level) in effect.levels.iter().enumerate() {
            let y = top + 22 * row + 11;
            if number == 0 {
                area.draw(&Circle::new((24, y), 4, colour.filled()))?;
                area.draw(&Text::new(effect.factor.clone(), (34, y), label(12, INK, HPos::Left, VPos::Center)))?;
            }
            area.draw(&Text::new(level.level.clone(), (left - 10, y), label(11, INK, HPos::Right, VPos::Center)))?;
            let line = [(at(level.holds.low), y), (at(level.holds.high), y)];
            area.draw(&PathElement::new(line, colour.stroke_width(2)))?;
            area.draw(&Circle::new((at(level.holds.share), y), 4, colour.filled()))?;
            row += 1;
        }
    }
    for tick in 0..=4 {
        let share = most * f64::from(tick) / 4.0;
        let place = (at(share), top + 22 * rows + 14);
        area.draw(&Text::new(format!("{:.1}%", 100.0 * share), place, label(11, INK, HPos::Center, VPos::Center)))?;
    }
    Ok(())
}
