//! Figures of a report: drawn once as SVG and rasterised from that, with an embedded font, so that the same report has the
//! same bytes on every machine.

use std::sync::Arc;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use program::figure::{Area, COLOURS, Drawn, FAINT, FONT, INK, heading, label, svg};
use resvg::{tiny_skia, usvg};

use crate::drawing::start;
use crate::error::LakeError;
use crate::map::{ACTIONS, Cell, Map};
use crate::measure::greedy_action;
use crate::report::{MethodReport, Report};
use crate::solver::TransitionMatrix;

/// A drawn figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// File name without its extension.
    pub name: String,
    /// The drawing.
    pub svg: String,
}

/// How many pixels of a PNG one unit of the SVG takes.
const PNG_SCALE: f32 = 2.0;
const HOLE: RGBColor = RGBColor(70, 76, 88);
const GOAL: RGBColor = RGBColor(240, 190, 60);
/// Every figure of a report: the distances, the learning curves, and one sheet of heat maps for each method.
///
/// # Errors
///
/// [`LakeError::Figure`] naming the figure.
pub fn draw(map: &Map, report: &Report) -> Result<Vec<Figure>, LakeError> {
    let bars = (140 + 110 * report.results.len() as u32).max(480);
    let mut figures = vec![
        figure("distance", (bars, 420), |area| distances(area, report))?,
        figure("curve", (720, 440), |area| curves(area, report))?,
    ];
    for result in &report.results {
        let name = format!("policy-{}", result.method);
        figures.push(figure(&name, (1180, 460), |area| heat_maps(area, map, report, result))?);
    }
    Ok(figures)
}

impl Figure {
    /// The figure as PNG, at twice the SVG's size.
    ///
    /// # Errors
    ///
    /// [`LakeError::Figure`] naming the figure.
    pub fn png(&self) -> Result<Vec<u8>, LakeError> {
        let fail = |problem: String| LakeError::Figure { figure: format!("{}.png", self.name), problem };
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        let options = usvg::Options { fontdb: Arc::new(fonts), font_family: FONT.to_owned(), ..Default::default() };
        let tree = usvg::Tree::from_str(&self.svg, &options).map_err(|error| fail(error.to_string()))?;
        let size = tree.size().to_int_size().scale_by(PNG_SCALE).ok_or_else(|| fail("too large".to_owned()))?;
        let mut pixmap =
            tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| fail("too large".to_owned()))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixmap.as_mut());
        pixmap.encode_png().map_err(|error| fail(error.to_string()))
    }
}

pub(crate) fn figure(name: &str, size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<Figure, LakeError> {
    let fail = |problem: String| LakeError::Figure { figure: format!("{name}.svg"), problem };
    Ok(Figure { name: name.to_owned(), svg: svg(size, draw).map_err(|error| fail(error.to_string()))? })
}

fn colour(report: &Report, label: &str) -> RGBColor {
    let place = report.recipe.method.iter().position(|entry| entry.label() == label).unwrap_or(0);
    COLOURS[place % COLOURS.len()]
}

fn setting(report: &Report) -> String {
    let recipe = &report.recipe;
    let words: Vec<_> = report.trajectories.iter().map(|(role, word)| format!("{role} {word}")).collect();
    format!(
        "{}, {}, {}; {} steps, {} seeds",
        recipe.map,
        recipe.dynamics(),
        words.join(", "),
        recipe.steps,
        recipe.seeds
    )
}

fn distances(area: &Area<'_>, report: &Report) -> Drawn {
    heading(area, "Distance from the optimal policy", &setting(report))?;
    let untrained = report.results.first().map_or(0.0, |result| result.initial_distance.mean);
    let tops = report.results.iter().map(|result| result.distance.mean + result.distance.ci95.unwrap_or(0.0));
    let top = 1.15 * tops.fold(untrained, f64::max);
    let count = report.results.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .margin_top(60)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..count - 0.5, 0.0..top)?;
    let name = |x: &f64| {
        let near = (x - x.round()).abs() < 1e-9;
        report.results.get(x.round() as usize).filter(|_| near && *x >= 0.0).map_or(String::new(), |r| r.method.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_labels(2 * report.results.len() + 1)
        .x_label_formatter(&name)
        .y_label_formatter(&|y| format!("{y:.2}"))
        .y_desc("MSE of T(a|s), 95% CI of the mean")
        .label_style(label(12, INK, HPos::Center, VPos::Center))
        .draw()?;
    for (place, result) in report.results.iter().enumerate() {
        let (x, mean) = (place as f64, result.distance.mean);
        let fill = colour(report, &result.method).filled();
        chart.draw_series([Rectangle::new([(x - 0.32, 0.0), (x + 0.32, mean)], fill)])?;
        let half = result.distance.ci95.unwrap_or(0.0);
        let (low, high, cap) = (mean - half, mean + half, 0.06);
        let whisker = [[(x, low), (x, high)], [(x - cap, low), (x + cap, low)], [(x - cap, high), (x + cap, high)]];
        chart.draw_series(whisker.map(|line| PathElement::new(line, INK.stroke_width(2))))?;
        let above = label(12, INK, HPos::Center, VPos::Bottom);
        chart.draw_series([Text::new(format!("{mean:.4}"), (x, mean + half + 0.01 * top), above)])?;
    }
    let line = [(-0.5, untrained), (count - 0.5, untrained)];
    chart.draw_series(DashedLineSeries::new(line, 6, 4, INK.stroke_width(1)))?;
    // The least distance comes first, so that there is most room.
    let above = label(11, INK, HPos::Left, VPos::Bottom);
    let text = format!("{} {untrained:.4}", start(report));
    chart.draw_series([Text::new(text, (-0.48, untrained + 0.006 * top), above)])?;
    Ok(())
}

/// The measured steps are about geometric, so that places along the axis are taken instead of a logarithm: 0 has one too.
fn curves(area: &Area<'_>, report: &Report) -> Drawn {
    heading(area, "Distance from the optimal policy during training", &setting(report))?;
    let steps = &report.results[0].curve.steps;
    let edges = report.results.iter().flat_map(|result| {
        result.curve.mean.iter().zip(&result.curve.ci95).map(|(mean, ci95)| mean + ci95.unwrap_or(0.0))
    });
    let top = 1.05 * edges.fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .margin_top(60)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..(steps.len() - 1) as f64, 0.0..top)?;
    let step = |x: &f64| {
        let near = (x - x.round()).abs() < 1e-9;
        steps.get(x.round() as usize).filter(|_| near).map_or(String::new(), |step| step.to_string())
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_labels(steps.len())
        .x_label_formatter(&step)
        .y_label_formatter(&|y| format!("{y:.2}"))
        .x_desc("optimizer steps (as measured)")
        .y_desc("MSE of T(a|s), 95% CI of the mean")
        .label_style(label(12, INK, HPos::Center, VPos::Center))
        .draw()?;
    for result in &report.results {
        let colour = colour(report, &result.method);
        let points: Vec<_> = (0..).map(f64::from).zip(result.curve.mean.iter().copied()).collect();
        let shifted = |sign: f64| {
            let halves = result.curve.ci95.iter().map(move |ci95| sign * ci95.unwrap_or(0.0));
            points.iter().zip(halves).map(|(&(x, mean), half)| (x, mean + half)).collect::<Vec<_>>()
        };
        let band: Vec<_> = shifted(1.0).into_iter().chain(shifted(-1.0).into_iter().rev()).collect();
        chart.draw_series([Polygon::new(band, colour.mix(0.25).filled())])?;
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(result.method.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .label_font(label(12, INK, HPos::Left, VPos::Top))
        .draw()?;
    Ok(())
}

fn heat_maps(area: &Area<'_>, map: &Map, report: &Report, result: &MethodReport) -> Drawn {
    let title = format!("{}: optimal value, optimal policy, learned policy (mean over seeds)", result.method);
    heading(area, &title, &setting(report))?;
    let rows = map.cells().len() / map.width();
    let side = 340 / map.width().max(rows) as i32;
    let values = map.non_terminal().into_iter().map(|cell| report.optimal.value[cell]);
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), v| (least.min(v), most.max(v)));
    let corner = |panel: i32, cell: usize| {
        let (row, column) = ((cell / map.width()) as i32, (cell % map.width()) as i32);
        (30 + panel * 380 + column * side, 94 + row * side)
    };
    for (panel, title) in (0..).zip(["V*(s), shaded from least to most", "T*(a|s)", "T(a|s)"]) {
        let place = (30 + panel * 380, 70);
        area.draw(&Text::new(title, place, label(13, INK, HPos::Left, VPos::Top)))?;
        for (cell, kind) in map.cells().iter().enumerate() {
            let (x, y) = corner(panel, cell);
            let square = [(x, y), (x + side, y + side)];
            let terminal = match kind {
                Cell::Hole => Some((HOLE, "")),
                Cell::Goal => Some((GOAL, "G")),
                Cell::Start | Cell::Frozen => None,
            };
            let middle = (x + side / 2, y + side / 2);
            if let Some((colour, letter)) = terminal {
                area.draw(&Rectangle::new(square, colour.filled()))?;
                area.draw(&Text::new(letter, middle, label(16, INK, HPos::Center, VPos::Center)))?;
            } else if panel == 0 {
                let value = report.optimal.value[cell];
                let amount = (value - least) / (most - least).max(f64::MIN_POSITIVE);
                area.draw(&Rectangle::new(square, shade(amount).filled()))?;
                let size = (side / 5).min(15) as u32;
                let ink = if amount > 0.6 { WHITE } else { INK };
                area.draw(&Text::new(format!("{value:.2}"), middle, label(size, ink, HPos::Center, VPos::Center)))?;
            } else {
                let policy = if panel == 1 { &report.optimal.transition_matrix } else { &result.transition_matrix };
                triangles(area, policy, cell, (x, y), side)?;
            }
            area.draw(&Rectangle::new(square, WHITE.stroke_width(2)))?;
        }
    }
    for (place, shade_of) in (0..100).map(|place| (place, f64::from(place) / 99.0)) {
        let x = 410 + 2 * place;
        area.draw(&Rectangle::new([(x, 442), (x + 2, 450)], shade(shade_of).filled()))?;
    }
    area.draw(&Text::new("0", (400, 446), label(11, INK, HPos::Right, VPos::Center)))?;
    area.draw(&Text::new("probability 1", (616, 446), label(11, INK, HPos::Left, VPos::Center)))?;
    Ok(())
}

/// A cell as four triangles, one on the side of each action, and the arrow of the most probable.
fn triangles(area: &Area<'_>, policy: &TransitionMatrix, cell: usize, (x, y): (i32, i32), side: i32) -> Drawn {
    let (left, top, right, bottom) = (x, y, x + side, y + side);
    let middle = (x + side / 2, y + side / 2);
    let edges: [[(i32, i32); 2]; ACTIONS] = [
        [(left, top), (left, bottom)],
        [(left, bottom), (right, bottom)],
        [(right, bottom), (right, top)],
        [(right, top), (left, top)],
    ];
    for ([from, to], &probability) in edges.into_iter().zip(&policy[cell]) {
        area.draw(&Polygon::new([from, to, middle], shade(probability).filled()))?;
        if side >= 60 {
            let place = ((from.0 + to.0 + middle.0) / 3, (from.1 + to.1 + middle.1) / 3);
            let ink = if probability > 0.6 { WHITE } else { INK };
            let text = format!("{probability:.2}");
            area.draw(&Text::new(text, place, label(10, ink, HPos::Center, VPos::Center)))?;
        }
    }
    let arrow = greedy_action(&policy[cell]).arrow().to_string();
    let size = (side / 4) as u32;
    area.draw(&Circle::new(middle, side / 6, WHITE.mix(0.8).filled()))?;
    area.draw(&Text::new(arrow, middle, label(size, INK, HPos::Center, VPos::Center)))?;
    Ok(())
}

/// From nearly white to deep blue.
pub(crate) fn shade(amount: f64) -> RGBColor {
    let amount = amount.clamp(0.0, 1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * amount).round() as u8;
    RGBColor(mix(238.0, 8.0), mix(243.0, 69.0), mix(250.0, 148.0))
}
