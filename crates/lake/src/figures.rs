//! Figures of a report: drawn once as SVG and rasterised from that, with an embedded font, so that the same report
//! gives the same bytes on every machine.

use std::sync::Arc;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use program::figure::{Area, Drawn, FAINT, FONT, INK, heading, label, readable_on, spread, svg, ticks};
use program::look::Look;
use resvg::{tiny_skia, usvg};

use crate::drawing::{measure_title, shortened, start};
use crate::environment::Environment;
use crate::error::LakeError;
use crate::map::{ACTIONS, Cell, Map};
use crate::measure::greedy_action;
use crate::number::fixed;
use crate::report::{MeasureReport, MethodReport, Optimal, PolicyReport, Report};
use crate::solver::TransitionMatrix;

/// A drawn figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// File name without its extension.
    pub name: String,
    /// SVG source of the drawing.
    pub svg: String,
}

/// Number of pixels of a PNG per unit of the SVG.
const PNG_SCALE: f32 = 2.0;
const HOLE: RGBColor = RGBColor(70, 76, 88);
const GOAL: RGBColor = RGBColor(240, 190, 60);
const ICE: RGBColor = RGBColor(237, 242, 248);
/// Height of the heading, where the figure begins.
const TOP: i32 = 84;
/// Distance between neighbouring bars.
const ROW: i32 = 24;
/// Smallest distance between the labels of two lines.
const LABEL: u32 = 15;
/// Number of lines beyond which intervals are drawn fainter.
const FEW: usize = 8;
/// Minimum length of the axis of distances.
const LEAST_TOP: f64 = 0.01;

/// Corners of the start's symbol, in percent of a cell's side.
pub(crate) const START_OUTLINE: [(f64, f64); 4] = [(12.0, 3.0), (21.0, 12.0), (12.0, 21.0), (3.0, 12.0)];
/// Corners of a goal's symbol.
pub(crate) const GOAL_OUTLINE: [(f64, f64); 10] = [
    (50.0, 20.0),
    (57.9, 41.1),
    (80.4, 42.1),
    (62.8, 56.2),
    (68.8, 77.9),
    (50.0, 65.5),
    (31.2, 77.9),
    (37.2, 56.2),
    (19.6, 42.1),
    (42.1, 41.1),
];

/// Draws every figure of a report: the distances, the learning curves, and one sheet of heat maps per method.
///
/// # Errors
///
/// [`LakeError::Figure`] naming the figure.
pub fn draw(map: &Map, report: &Report) -> Result<Vec<Figure>, LakeError> {
    let untrained = report.results.first().map_or(0.0, |result| result.initial_distance.mean);
    let policies: Vec<_> = report.results.iter().map(|result| &result.policy).collect();
    let setting = setting(report);
    let count = report.results.len() as u32;
    let mut figures = vec![
        distance_figure(&setting, &policies, Some((untrained, start(report))))?,
        figure("curve", (900, (140 + LABEL * count).max(440)), |area| curves(area, report))?,
    ];
    for policy in policies {
        figures.push(policy_figure(map, &setting, &report.optimal, policy)?);
    }
    Ok(figures)
}

/// Draws the figures of policies from files: the distances, and one sheet of heat maps per name.
///
/// # Errors
///
/// [`LakeError::Figure`] naming the figure.
pub fn draw_measured(environment: &Environment, report: &MeasureReport) -> Result<Vec<Figure>, LakeError> {
    let setting = measure_title(environment, report);
    let policies: Vec<_> = report.results.iter().collect();
    let mut figures = vec![distance_figure(&setting, &policies, None)?];
    for policy in policies {
        figures.push(policy_figure(environment.map(), &setting, &report.optimal, policy)?);
    }
    Ok(figures)
}

fn distance_figure(
    setting: &str,
    policies: &[&PolicyReport],
    untrained: Option<(f64, &str)>,
) -> Result<Figure, LakeError> {
    let height = TOP + ROW * policies.len() as i32 + 56;
    figure("distance", (760, height as u32), |area| distances(area, setting, policies, untrained))
}

fn policy_figure(map: &Map, setting: &str, optimal: &Optimal, policy: &PolicyReport) -> Result<Figure, LakeError> {
    figure(&format!("policy-{}", policy.method), (1180, 460), |area| heat_maps(area, map, setting, optimal, policy))
}

impl Figure {
    /// Rasterises the figure as PNG, at twice the SVG's size.
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

fn setting(report: &Report) -> String {
    let recipe = &report.recipe;
    let words: Vec<_> = report.trajectories.iter().map(|(role, word)| format!("{role} {}", shortened(word))).collect();
    format!(
        "{}, {}, {}; {} steps, {} seeds",
        recipe.map,
        recipe.dynamics(),
        words.join(", "),
        recipe.steps,
        recipe.seeds
    )
}

/// One bar per method, the smallest distance first.
fn distances(area: &Area<'_>, setting: &str, policies: &[&PolicyReport], untrained: Option<(f64, &str)>) -> Drawn {
    heading(area, "Distance from the optimal policy", setting)?;
    let edge = |policy: &&PolicyReport| policy.distance.mean + policy.distance.ci95.unwrap_or(0.0);
    let edges = policies.iter().map(edge).chain(untrained.map(|(distance, _)| distance));
    // The optimal policy has a bar of length 0, so the axis needs a minimum length.
    let top = edges.fold(0.0, f64::max).max(LEAST_TOP);
    let text = label(12, INK, HPos::Left, VPos::Center);
    let widest = |text: &TextStyle<'_>| {
        let widths = policies.iter().map(|policy| Ok(area.estimate_text_size(&policy.method, text)?.0));
        widths.collect::<Result<Vec<_>, Box<dyn std::error::Error>>>().map(|all| all.into_iter().max().unwrap_or(0))
    };
    let left = 56 + widest(&text)? as i32;
    let (width, bottom) = (f64::from(area.dim_in_pixel().0 as i32 - left - 80), TOP + ROW * policies.len() as i32);
    let at = |distance: f64| left + (distance / top * width).round() as i32;
    let (ticks, decimals) = ticks(top, 6.0);
    for tick in ticks {
        area.draw(&PathElement::new([(at(tick), TOP), (at(tick), bottom)], FAINT))?;
        let place = (at(tick), bottom + 8);
        area.draw(&Text::new(fixed(tick, decimals), place, label(11, INK, HPos::Center, VPos::Top)))?;
    }
    let place = (left, bottom + 28);
    area.draw(&Text::new("MSE of T(a|s), 95% CI of the mean", place, label(11, INK, HPos::Left, VPos::Top)))?;
    for (row, policy) in (0..).zip(policies) {
        let (y, look) = (TOP + ROW * row + ROW / 2, Look::of(&policy.method));
        let (mean, half) = (policy.distance.mean, policy.distance.ci95.unwrap_or(0.0));
        look.mark(area, (30, y))?;
        area.draw(&Text::new(policy.method.clone(), (44, y), text.clone()))?;
        area.draw(&Rectangle::new([(left, y - 8), (at(mean), y + 8)], look.colour.filled()))?;
        // An interval may extend below 0, but no distance is negative.
        let (low, high) = (at((mean - half).max(0.0)), at(mean + half));
        for line in [[(low, y), (high, y)], [(low, y - 4), (low, y + 4)], [(high, y - 4), (high, y + 4)]] {
            area.draw(&PathElement::new(line, INK.stroke_width(2)))?;
        }
        area.draw(&Text::new(fixed(mean, 4), (high + 8, y), text.clone()))?;
    }
    area.draw(&PathElement::new([(left, TOP), (left, bottom)], INK))?;
    let Some((untrained, start)) = untrained else { return Ok(()) };
    let x = at(untrained);
    for y in (TOP - 2..bottom).step_by(8) {
        area.draw(&PathElement::new([(x, y), (x, (y + 5).min(bottom))], INK))?;
    }
    let above = label(11, INK, HPos::Center, VPos::Bottom);
    area.draw(&Text::new(format!("{start} {}", fixed(untrained, 4)), (x, TOP - 5), above))?;
    Ok(())
}

/// The measured steps are roughly geometric, so their indices are used instead of a logarithm, which 0 does not have.
fn curves(area: &Area<'_>, report: &Report) -> Drawn {
    heading(area, "Distance from the optimal policy during training", &setting(report))?;
    let steps = &report.results[0].curve.steps;
    let edges = report.results.iter().flat_map(|result| {
        result.curve.mean.iter().zip(&result.curve.ci95).map(|(mean, ci95)| mean + ci95.unwrap_or(0.0))
    });
    let top = 1.05 * edges.fold(0.0, f64::max);
    let style = label(12, INK, HPos::Left, VPos::Center);
    let width = |result: &MethodReport| Ok(area.estimate_text_size(&result.policy.method, &style)?.0);
    let names = report.results.iter().map(width).collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
    let names = names.into_iter().max().unwrap_or(0);
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .margin_top(60)
        .margin_right(50 + names)
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
    let last = f64::from(steps.len() as u32 - 1);
    let place = |x: f64, y: f64| chart.plotting_area().map_coordinate(&(x, y));
    for result in &report.results {
        let look = Look::of(&result.policy.method);
        let half = |at: usize| result.curve.ci95[at].unwrap_or(0.0);
        let ways = result.curve.mean.iter().enumerate().map(|(at, mean)| (at, *mean));
        let edge = |sign: f64| ways.clone().map(move |(at, mean)| place(at as f64, (mean + sign * half(at)).max(0.0)));
        let band: Vec<_> = edge(1.0).chain(edge(-1.0).collect::<Vec<_>>().into_iter().rev()).collect();
        area.draw(&Polygon::new(band, look.colour.mix(if report.results.len() > FEW { 0.08 } else { 0.2 }).filled()))?;
    }
    let ends: Vec<_> = report.results.iter().map(|result| result.curve.mean.last().copied().unwrap_or(0.0)).collect();
    let ends: Vec<_> = ends.into_iter().map(|end| place(last, end)).collect();
    let wanted: Vec<_> = ends.iter().map(|(_, y)| f64::from(*y)).collect();
    let height = f64::from(area.dim_in_pixel().1);
    let labels = spread(&wanted, f64::from(LABEL), f64::from(TOP), height - 68.0);
    for ((result, end), label_at) in report.results.iter().zip(ends).zip(labels) {
        let look = Look::of(&result.policy.method);
        let points: Vec<_> = (0..).map(f64::from).zip(&result.curve.mean).map(|(x, mean)| place(x, *mean)).collect();
        look.line(area, &points, 2)?;
        for point in points {
            look.mark(area, point)?;
        }
        let beside = (end.0 + 34, label_at.round() as i32);
        area.draw(&PathElement::new([(end.0 + 7, end.1), (beside.0 - 7, beside.1)], look.colour))?;
        look.mark(area, beside)?;
        let style = label(12, INK, HPos::Left, VPos::Center);
        area.draw(&Text::new(result.policy.method.clone(), (beside.0 + 10, beside.1), style))?;
    }
    Ok(())
}

fn heat_maps(area: &Area<'_>, map: &Map, setting: &str, optimal: &Optimal, learned: &PolicyReport) -> Drawn {
    let title = format!("{}: optimal value, optimal policy, learned policy (mean over seeds)", learned.method);
    heading(area, &title, setting)?;
    let rows = map.cells().len() / map.width();
    let side = 340 / map.width().max(rows) as i32;
    let values = map.non_terminal().into_iter().map(|cell| optimal.value[cell]);
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
            let middle = (x + side / 2, y + side / 2);
            if kind.is_terminal() {
                area.draw(&Rectangle::new(square, ICE.filled()))?;
            } else if panel == 0 {
                let value = optimal.value[cell];
                let amount = (value - least) / (most - least).max(f64::MIN_POSITIVE);
                area.draw(&Rectangle::new(square, shade(amount).filled()))?;
                let size = (side / 5).min(15) as u32;
                let style = label(size, readable_on(shade(amount)), HPos::Center, VPos::Center);
                area.draw(&Text::new(fixed(value, 2), middle, style))?;
            } else {
                let policy = if panel == 1 { &optimal.transition_matrix } else { &learned.transition_matrix };
                triangles(area, policy, cell, (x, y), side)?;
            }
            area.draw(&Rectangle::new(square, WHITE.stroke_width(2)))?;
            symbol(area, *kind, (x, y), side)?;
        }
    }
    for (place, shade_of) in (0..100).map(|place| (place, f64::from(place) / 99.0)) {
        let x = 410 + 2 * place;
        area.draw(&Rectangle::new([(x, 442), (x + 2, 450)], shade(shade_of).filled()))?;
    }
    area.draw(&Text::new("0", (400, 446), label(11, INK, HPos::Right, VPos::Center)))?;
    area.draw(&Text::new("probability 1", (616, 446), label(11, INK, HPos::Left, VPos::Center)))?;
    let marks = [(Cell::Start, "start", 30), (Cell::Hole, "hole", 90), (Cell::Goal, "goal", 150)];
    for (kind, name, x) in marks {
        // The start's symbol is small and in a corner.
        let (place, side) = if kind == Cell::Start { ((x, 440), 50) } else { ((x - 4, 436), 20) };
        symbol(area, kind, place, side)?;
        area.draw(&Text::new(name, (x + 18, 446), label(11, INK, HPos::Left, VPos::Center)))?;
    }
    Ok(())
}

/// Draws a cell's symbol, the same as on a terminal: a diamond for the start, a disc for a hole, a star for the goal.
fn symbol(area: &Area<'_>, kind: Cell, (x, y): (i32, i32), side: i32) -> Drawn {
    let scaled = |(across, down): &(f64, f64)| {
        let place = |share: f64| (share / 100.0 * f64::from(side)).round() as i32;
        (x + place(*across), y + place(*down))
    };
    match kind {
        Cell::Frozen => (),
        Cell::Start => {
            let diamond: Vec<_> = START_OUTLINE.iter().map(scaled).collect();
            area.draw(&Polygon::new(diamond.clone(), INK.filled()))?;
            let closed: Vec<_> = diamond.iter().chain(diamond.first()).copied().collect();
            area.draw(&PathElement::new(closed, WHITE))?;
        }
        Cell::Hole => area.draw(&Circle::new((x + side / 2, y + side / 2), side * 3 / 10, HOLE.filled()))?,
        Cell::Goal => area.draw(&Polygon::new(GOAL_OUTLINE.iter().map(scaled).collect::<Vec<_>>(), GOAL.filled()))?,
    }
    Ok(())
}

/// Draws a cell as four triangles, one on the side of each action, and the arrow of the most probable.
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
            let style = label(10, readable_on(shade(probability)), HPos::Center, VPos::Center);
            area.draw(&Text::new(fixed(probability, 2), place, style))?;
        }
    }
    let arrow = greedy_action(&policy[cell]).arrow().to_string();
    let size = (side / 4) as u32;
    area.draw(&Circle::new(middle, side / 6, WHITE.mix(0.8).filled()))?;
    area.draw(&Text::new(arrow, middle, label(size, INK, HPos::Center, VPos::Center)))?;
    Ok(())
}

/// Colour from nearly white to deep blue.
pub(crate) fn shade(amount: f64) -> RGBColor {
    let amount = amount.clamp(0.0, 1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * amount).round() as u8;
    RGBColor(mix(238.0, 8.0), mix(243.0, 69.0), mix(250.0, 148.0))
}
