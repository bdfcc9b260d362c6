//! The page of a report, which opens from disk: the table, the learning curves, and the lake with the optimal and the
//! learned policy at each measured step of training. It reads the report's rows and needs no network.

use std::fmt::Write;

use askama::Template;
use program::figure::{spread, ticks};
use program::look::Look;
use serde::Serialize;

use crate::audit::Explored;
use crate::error::LakeError;
use crate::experiment::report::{MethodReport, PolicyReport, Report};
use crate::measure::statistics::Summary;
use crate::render::drawing;
use crate::render::fitted::COLUMNS as PAGE_COLUMNS;
use crate::world::environment::Environment;
use crate::world::map::{ACTIONS, Action, Cell, Map};
use crate::world::policy_table::TransitionMatrix;
use crate::world::policy_table::greedy_action;

/// Side of a drawn cell, in units of the drawing.
const SIDE: usize = 100;
/// Outline of a whole cell.
const WHOLE: &str = "M0 0H100V100H0Z";
/// Sides of the chart, in units of the drawing; it is stretched to the page's width.
const CHART: f64 = 1000.0;
/// Number of methods beyond which lines are thinner.
const FEW: usize = 7;
/// Number of line labels that fit the chart's minimum height.
const LEAST_LABELS: usize = 10;
/// Approximate number of grid lines across the chart.
const LINES: f64 = 5.0;
/// Number of steps beyond which a narrow page labels only every other one.
const CLOSE: usize = 6;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    style: &'static str,
    /// Style of parts that only some pages have.
    explanation_style: &'static str,
    script: &'static str,
    data: String,
    title: String,
    map: &'a Map,
    facts: Vec<(&'static str, String)>,
    columns: [&'static str; 7],
    rows: Vec<Row>,
    distance: &'static str,
    episodes: String,
    seeds: usize,
    choices: Vec<Choice<'a>>,
    many: bool,
    /// Number of letters of the longest name.
    letters: usize,
    chart: Chart,
    step: String,
    /// Number of the curve's steps after the first.
    last: usize,
    lakes: [Lake; 3],
    cells: Vec<CellRow>,
    drawn: String,
    arrows: &'static str,
    recipe: String,
    version: &'static str,
    seed: u64,
    explored: Vec<Heat>,
    /// Name of the quantity that the heat map shows.
    reads: &'static str,
    parts: Vec<drawing::Part>,
}

/// Reads of methods on the lake, one drawing per origin.
struct Heat {
    methods: String,
    lakes: Vec<Lake>,
    /// Number of reads with the fullest colour.
    most: String,
}

/// A row of the table.
struct Row {
    name: String,
    distance: String,
    bar: Option<Bar>,
    /// Colour of the method.
    colour: String,
    rest: Vec<String>,
}

/// A distance and its interval, in percent of the maximum.
struct Bar {
    mean: String,
    low: String,
    width: String,
    untrained: String,
}

/// A method that can be selected.
struct Choice<'a> {
    name: &'a str,
    look: Swatch,
}

/// Line and marker of a method, the same as in the figures.
#[derive(Clone)]
struct Swatch {
    colour: String,
    /// Lengths of dashes and gaps, as an SVG attribute; `none` for a solid line.
    dash: String,
    /// Outline of the method's marker, in the middle of a line of 34 x 12 units.
    marker: String,
    is_filled: bool,
}

/// Distances during training.
struct Chart {
    steps: Vec<Tick>,
    distances: Vec<Tick>,
    series: Vec<Series>,
    top: f64,
}

/// A labelled position on an axis, in percent.
struct Tick {
    at: String,
    label: String,
    /// Whether the label is omitted if there is little room.
    minor: bool,
}

/// Line of a method and the band of its intervals.
struct Series {
    method: usize,
    name: String,
    look: Swatch,
    line: String,
    band: String,
    /// Height at which the line ends, in thousandths of the chart's height.
    end: String,
    /// Height of the line's label, in thousandths and in percent.
    label: (String, String),
}

/// A lake in which each cell has a coloured part on the side of each action.
struct Lake {
    id: &'static str,
    title: &'static str,
    label: &'static str,
    size: (usize, usize),
    cells: Vec<DrawnCell>,
}

struct DrawnCell {
    cell: usize,
    corner: (usize, usize),
    kind: Cell,
    shades: Vec<Shade>,
    arrow: Option<Action>,
}

struct Shade {
    triangle: &'static str,
    opacity: String,
    /// Whether the learned policy takes the action less often than the optimal one.
    less: bool,
}

/// Probabilities of a non-terminal cell as numbers.
struct CellRow {
    cell: usize,
    place: (usize, usize),
    optimal: Vec<String>,
    learned: Vec<String>,
}

/// Data for the page's script.
#[derive(Serialize)]
struct Data<'a> {
    steps: &'a [usize],
    top: f64,
    optimal: &'a TransitionMatrix,
    methods: Vec<MethodData<'a>>,
}

#[derive(Serialize)]
struct MethodData<'a> {
    name: &'a str,
    mean: &'a [f64],
    ci95: &'a [Option<f64>],
    snapshots: &'a [TransitionMatrix],
}

/// The page of a report.
///
/// # Errors
///
/// [`LakeError::Page`] where the report or its recipe cannot be written as text.
pub fn draw(environment: &Environment, report: &Report) -> Result<String, LakeError> {
    let fail = |problem: String| LakeError::Page { problem };
    let map = environment.map();
    let chart = chart(report);
    let curve = report.results.first().map(|result| &result.curve);
    let steps = curve.map_or(&[][..], |curve| &curve.steps);
    let learned = report.results.first().and_then(|result| result.snapshots.last());
    let learned = learned.unwrap_or(&report.optimal.transition_matrix);
    let data = Data {
        steps,
        top: chart.top,
        optimal: &report.optimal.transition_matrix,
        methods: report.results.iter().map(method_data).collect(),
    };
    // Text in the data must not end the element that contains it.
    let data = serde_json::to_string(&data).map_err(|error| fail(error.to_string()))?.replace('<', "\\u003c");
    let parts = drawing::explanation_parts(report);
    let page = Page {
        style: include_str!("../../templates/report.css"),
        explanation_style: if parts.is_empty() { "" } else { include_str!("../../templates/explanation.css") },
        script: include_str!("../../templates/report.js"),
        data,
        title: drawing::title(environment, report),
        map,
        facts: facts(environment, report),
        columns: drawing::header(report),
        rows: rows(map, report),
        distance: drawing::DISTANCE,
        episodes: drawing::episodes(report),
        seeds: report.recipe.seeds,
        choices: report
            .results
            .iter()
            .map(|result| Choice { name: &result.policy.method, look: Swatch::of(&result.policy.method) })
            .collect(),
        many: report.results.len() > FEW,
        letters: report.results.iter().map(|result| result.policy.method.len()).max().unwrap_or(0),
        step: steps.last().map_or(String::new(), usize::to_string),
        last: steps.len().saturating_sub(1),
        lakes: lakes(map, &report.optimal.transition_matrix, learned),
        cells: cells(map, &report.optimal.transition_matrix, learned),
        drawn: drawing::lakes(map, drawing::policies(report), &report.optimal, PAGE_COLUMNS),
        arrows: drawing::ARROWS,
        recipe: toml::to_string(&report.recipe).map_err(|error| fail(error.to_string()))?,
        version: report.version,
        seed: report.recipe.seed,
        explored: drawing::same_reads(report).iter().map(|group| heat(map, group)).collect(),
        reads: drawing::READS,
        parts,
        chart,
    };
    page.render().map_err(|error| fail(error.to_string()))
}

impl Swatch {
    fn of(name: &str) -> Self {
        let look = Look::of(name);
        let (corners, is_filled) = look.marker.outline();
        let corners = corners.iter().map(|(x, y)| format!("{:.1} {:.1}", 17.0 + 4.5 * x, 6.0 + 4.5 * y));
        Self {
            colour: look.hex(),
            dash: if look.dash.is_empty() { "none".to_owned() } else { spaced(look.dash.iter().map(u32::to_string)) },
            marker: format!("M{}Z", corners.collect::<Vec<_>>().join("L")),
            is_filled,
        }
    }
}

impl Lake {
    /// Draws the lake with the colours of a policy.
    fn of(map: &Map, id: &'static str, title: &'static str, label: &'static str, policy: &TransitionMatrix) -> Self {
        let shade = |cell: usize, action: Action| (policy[cell][action as usize], false);
        let arrow = |cell: usize| Some(greedy_action(&policy[cell]));
        Self::drawn(map, (id, title, label), shade, arrow)
    }

    fn drawn(
        map: &Map,
        (id, title, label): (&'static str, &'static str, &'static str),
        shade: impl Fn(usize, Action) -> (f64, bool),
        arrow: impl Fn(usize) -> Option<Action>,
    ) -> Self {
        let drawn = |(cell, kind): (usize, &Cell)| {
            let shades = Action::ALL.into_iter().map(|action| {
                let (opacity, less) = shade(cell, action);
                Shade { triangle: triangle(action), opacity: format!("{opacity:.3}"), less }
            });
            DrawnCell {
                shades: if kind.is_terminal() { Vec::new() } else { shades.collect() },
                arrow: arrow(cell).filter(|_| !kind.is_terminal()),
                ..DrawnCell::bare(map, cell, *kind)
            }
        };
        Self { cells: map.cells().iter().enumerate().map(drawn).collect(), ..Self::bare(map, id, title, label) }
    }

    /// Makes a drawing of the lake's size without cells.
    fn bare(map: &Map, id: &'static str, title: &'static str, label: &'static str) -> Self {
        let size = (SIDE * map.width(), SIDE * map.height());
        Self { id, title, label, size, cells: Vec::new() }
    }
}

impl DrawnCell {
    /// A cell without colours and arrow.
    fn bare(map: &Map, cell: usize, kind: Cell) -> Self {
        let corner = (SIDE * (cell % map.width()), SIDE * (cell / map.width()));
        Self { cell, corner, kind, shades: Vec::new(), arrow: None }
    }

    fn is_start(&self) -> bool {
        self.kind == Cell::Start
    }

    fn is_hole(&self) -> bool {
        self.kind == Cell::Hole
    }

    fn is_goal(&self) -> bool {
        self.kind == Cell::Goal
    }

    /// Rotation of an arrow to the right, in degrees.
    fn degrees(&self) -> Option<usize> {
        self.arrow.map(|action| match action {
            Action::Right => 0,
            Action::Down => 90,
            Action::Left => 180,
            Action::Up => 270,
        })
    }
}

fn method_data(result: &MethodReport) -> MethodData<'_> {
    let MethodReport { policy: PolicyReport { method, .. }, curve, snapshots, .. } = result;
    MethodData { name: method, mean: &curve.mean, ci95: &curve.ci95, snapshots }
}

fn facts(environment: &Environment, report: &Report) -> Vec<(&'static str, String)> {
    let recipe = &report.recipe;
    let mut facts = vec![
        ("slippery", if environment.slippery() { "yes" } else { "no" }.to_owned()),
        ("discount", recipe.gamma.to_string()),
        ("seeds", recipe.seeds.to_string()),
        ("steps", recipe.steps.to_string()),
        ("optimizer", format!("{} at {}", recipe.optimizer.name(), recipe.learning_rate)),
    ];
    facts.extend(report.trajectories.iter().map(|(role, word)| (*role, word.clone())));
    facts
}

fn rows(map: &Map, report: &Report) -> Vec<Row> {
    let edge = |summary: &Summary| summary.mean + summary.ci95.unwrap_or(0.0);
    let edges =
        report.results.iter().flat_map(|result| [edge(&result.policy.distance), edge(&result.initial_distance)]);
    let most = edges.fold(f64::MIN_POSITIVE, f64::max);
    let bar = |result: &MethodReport| {
        let (Summary { mean, .. }, half) = (&result.policy.distance, result.policy.distance.ci95.unwrap_or(0.0));
        Bar {
            mean: percent(mean / most),
            low: percent((mean - half).max(0.0) / most),
            // An interval may extend below 0, where the bar begins.
            width: percent((mean + half - (mean - half).max(0.0)) / most),
            untrained: percent(result.initial_distance.mean / most),
        }
    };
    let bars = report.results.iter().map(|result| Some(bar(result))).chain(std::iter::repeat_with(|| None));
    let row = |(row, bar): ([String; 7], _)| {
        let [name, distance, rest @ ..] = row;
        Row { colour: Look::of(&name).hex(), name, distance, bar, rest: rest.into() }
    };
    drawing::rows(map, report).into_iter().zip(bars).map(row).collect()
}

/// The measured steps are roughly geometric, so they are drawn at equal distances, and 0 has a position too.
fn chart(report: &Report) -> Chart {
    let curves = || report.results.iter().map(|result| &result.curve);
    let steps = curves().next().map_or(&[][..], |curve| &curve.steps);
    let last = steps.len().saturating_sub(1).max(1);
    let edges = curves().flat_map(|curve| curve.mean.iter().zip(&curve.ci95));
    let top = 1.05 * edges.fold(1e-9, |most: f64, (mean, ci95)| most.max(mean + ci95.unwrap_or(0.0)));

    let tick = |(place, step): (usize, &usize)| Tick {
        at: percent(place as f64 / last as f64),
        label: step.to_string(),
        minor: last > CLOSE && (last - place.min(last)) % 2 == 1,
    };
    let (heights, decimals) = ticks(top, LINES);
    let height = |height: f64| Tick { at: percent(height / top), label: format!("{height:.decimals$}"), minor: false };

    let point = |place: usize, value: f64| {
        let (x, y) = (place as f64 / last as f64, 1.0 - value.clamp(0.0, top) / top);
        format!("{:.1},{:.1}", CHART * x, CHART * y)
    };
    let below = |value: f64| CHART * (1.0 - value.clamp(0.0, top) / top);
    let ends: Vec<_> = curves().map(|curve| below(curve.mean.last().copied().unwrap_or(0.0))).collect();
    let labels = spread(&ends, CHART / ends.len().max(LEAST_LABELS) as f64, 0.0, CHART);
    let series = |(method, result): (usize, &MethodReport)| {
        let curve = &result.curve;
        let moved = |sign: f64| {
            let halves = curve.ci95.iter().map(move |ci95| sign * ci95.unwrap_or(0.0));
            curve.mean.iter().zip(halves).enumerate().map(|(place, (mean, half))| point(place, mean + half))
        };
        let band = moved(1.0).chain(moved(-1.0).collect::<Vec<_>>().into_iter().rev());
        Series {
            method,
            name: result.policy.method.clone(),
            look: Swatch::of(&result.policy.method),
            line: spaced(moved(0.0)),
            band: spaced(band),
            end: format!("{:.1}", ends[method]),
            label: (format!("{:.1}", labels[method]), percent(labels[method] / CHART)),
        }
    };
    let mut series: Vec<_> = report.results.iter().enumerate().map(series).collect();
    // The first method is drawn in front of the others.
    series.reverse();
    Chart {
        steps: steps.iter().enumerate().map(tick).collect(),
        distances: heights.into_iter().map(height).collect(),
        series,
        top,
    }
}

fn lakes(map: &Map, optimal: &TransitionMatrix, learned: &TransitionMatrix) -> [Lake; 3] {
    let difference = |cell: usize, action: Action| {
        let more = learned[cell][action as usize] - optimal[cell][action as usize];
        (more.abs(), more < 0.0)
    };
    [
        Lake::of(map, "optimal", "Optimal", "The optimal policy T*(a|s) on the lake", optimal),
        Lake::of(map, "learned", "Learned", "The learned policy T(a|s) on the lake, mean over seeds", learned),
        Lake::drawn(
            map,
            ("difference", "Difference", "Learned minus optimal probabilities on the lake"),
            difference,
            |_| None,
        ),
    ]
}

/// Lakes with the reads of methods. Colours are logarithmic, so that a cell that was read once is visible beside one
/// that was always read.
fn heat(map: &Map, group: &drawing::SameReads<'_>) -> Heat {
    let all = group.explored.iter().flat_map(|explored| &explored.reads);
    let most = all.fold(f64::MIN_POSITIVE, |most: f64, reads| most.max(*reads));
    let lake = |explored: &Explored| {
        let drawn = |(cell, kind): (usize, &Cell)| {
            let opacity = format!("{:.3}", explored.reads[cell].ln_1p() / most.ln_1p());
            DrawnCell {
                shades: vec![Shade { triangle: WHOLE, opacity, less: false }],
                ..DrawnCell::bare(map, cell, *kind)
            }
        };
        let label = "How often the training read each cell";
        Lake {
            cells: map.cells().iter().enumerate().map(drawn).collect(),
            ..Lake::bare(map, "", explored.origin.name(), label)
        }
    };
    Heat {
        methods: group.methods.join(", "),
        lakes: group.explored.iter().map(lake).collect(),
        most: format!("{most:.0}"),
    }
}

fn cells(map: &Map, optimal: &TransitionMatrix, learned: &TransitionMatrix) -> Vec<CellRow> {
    let numbers = |row: &[f64; ACTIONS]| row.iter().map(|probability| format!("{probability:.3}")).collect();
    let row = |cell: usize| CellRow {
        cell,
        place: (cell / map.width() + 1, cell % map.width() + 1),
        optimal: numbers(&optimal[cell]),
        learned: numbers(&learned[cell]),
    };
    map.non_terminal().into_iter().map(row).collect()
}

/// Part of a cell on the side of an action.
fn triangle(action: Action) -> &'static str {
    match action {
        Action::Left => "M0 0V100L50 50Z",
        Action::Down => "M0 100H100L50 50Z",
        Action::Right => "M100 0V100L50 50Z",
        Action::Up => "M0 0H100L50 50Z",
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

fn spaced(points: impl Iterator<Item = String>) -> String {
    points.fold(String::new(), |mut text, point| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{point}", if text.is_empty() { "" } else { " " });
        text
    })
}
