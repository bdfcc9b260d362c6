//! Lakes and tables as text.

use comfy_table::{CellAlignment, Table, presets};

use crate::environment::Environment;
use crate::map::{Action, Cell, Map};
use crate::measure::greedy_action;
use crate::report::{MethodReport, Report, Summary};
use crate::solver::{Solution, TransitionMatrix};

/// Columns that drawings may take beside one another.
const PAGE_WIDTH: usize = 120;

/// The table's columns.
pub const HEADER: [&str; 6] =
    ["method", "distance (95% CI)", "untrained", "success greedy/sampled", "return greedy/sampled", "cells visited"];

/// What a drawn lake shows.
pub const ARROWS: &str = "Arrows: the most probable action. ● hole, ★ goal.";
/// What the table's distance is.
pub const DISTANCE: &str =
    "Distance: mean squared error between the policy's T(a|s) and the optimal one over the non-terminal cells.";

/// The lake with one arrow a cell, the policy's most probable action.
pub fn arrows(map: &Map, policy: &TransitionMatrix) -> Vec<String> {
    framed(map, |cell| vec![format!(" {}", greedy_action(&policy[cell]).arrow())])
}

/// The lake with a number a cell.
pub fn values(map: &Map, value: &[f64]) -> Vec<String> {
    framed(map, |cell| vec![format!(" {:.3}", value[cell])])
}

/// The lake with four numbers a cell, each on the side that its action goes to.
pub fn action_values(map: &Map, solution: &Solution, policy: &TransitionMatrix) -> Vec<String> {
    framed(map, |cell| {
        let q = |action: Action| format!("{:.2}", solution.action_value[cell][action as usize]);
        vec![
            format!("     {}    ", q(Action::Up)),
            format!(" {} {} {} ", q(Action::Left), greedy_action(&policy[cell]).arrow(), q(Action::Right)),
            format!("     {}    ", q(Action::Down)),
        ]
    })
}

/// Drawings beside one another, as many as fit, each under its title.
pub fn side_by_side(drawings: &[(&str, Vec<String>)]) -> String {
    const GAP: usize = 3;
    let width = |(title, lines): &(&str, Vec<String>)| {
        lines.first().map_or(0, |line| line.chars().count()).max(title.chars().count())
    };
    let widest = drawings.iter().map(width).max().unwrap_or(0);
    let rows = drawings.chunks((PAGE_WIDTH / (widest + GAP)).max(1)).map(|row| {
        let height = row.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
        let line = |number: usize| {
            let columns = row.iter().map(|(title, lines)| {
                let text = if number == 0 { title } else { lines.get(number - 1).map_or("", String::as_str) };
                format!("{text:<widest$}")
            });
            columns.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned() + "\n"
        };
        (0..=height).map(line).collect::<String>()
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// What a report says, for a terminal: the setting, the lakes with arrows, and one row a method.
pub fn page(environment: &Environment, report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    for row in rows(environment.map(), report) {
        table.add_row(row);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let (title, lakes, episodes) = (title(environment, report), lakes(environment.map(), report), episodes(report));
    format!("{title}\n\n{lakes}\n{}\n\n{ARROWS}\n{DISTANCE}\n{episodes}", table.trim_fmt())
}

/// The setting in one line.
pub fn title(environment: &Environment, report: &Report) -> String {
    let (map, recipe) = (environment.map(), &report.recipe);
    let trajectories: Vec<_> = report.trajectories.iter().map(|(role, word)| format!("{role} {word}")).collect();
    format!(
        "Frozen Lake {}, {}, discount {}; {} {}, {} steps of {} at {}; {}",
        map.name(),
        if environment.slippery() { "slippery" } else { "not slippery" },
        recipe.gamma,
        recipe.seeds,
        if recipe.seeds == 1 { "seed" } else { "seeds" },
        recipe.steps,
        recipe.optimizer.name,
        recipe.learning_rate,
        trajectories.join(", "),
    )
}

/// The most probable actions of every method's policy and of the optimal one.
pub fn lakes(map: &Map, report: &Report) -> String {
    let mut drawings: Vec<_> =
        report.results.iter().map(|result| (result.method.as_str(), arrows(map, &result.transition_matrix))).collect();
    drawings.push(("optimal", arrows(map, &report.optimal.transition_matrix)));
    side_by_side(&drawings)
}

/// One row a method, and the optimal policy's, under [`HEADER`].
pub fn rows(map: &Map, report: &Report) -> Vec<[String; 6]> {
    let row = |result: &MethodReport| {
        let fares = |greedy: f64, sampled: f64| format!("{greedy:.3} / {sampled:.3}");
        [
            result.method.clone(),
            interval(&result.distance),
            interval(&result.initial_distance),
            fares(result.success_rate.greedy, result.success_rate.sampled),
            fares(result.mean_return.greedy, result.mean_return.sampled),
            format!("{:.1} of {}", result.cells_visited.mean, map.cells().len()),
        ]
    };
    let (optimal, fares) = (&report.optimal, |value: f64| format!("{value:.3}"));
    let best = [
        "optimal".to_owned(),
        "0".to_owned(),
        String::new(),
        fares(optimal.success_rate),
        fares(optimal.mean_return),
        String::new(),
    ];
    report.results.iter().map(row).chain([best]).collect()
}

/// What each method that samples took from the lake beside, or in place of, the trajectories.
pub fn episodes(report: &Report) -> String {
    let described = |result: &MethodReport| {
        let sampled = result.sampled.as_ref()?;
        let ties = sampled.ties.as_ref().map(|ties| format!(", {:.1} samples without a pair", ties.mean));
        Some(format!("{} {}{}", result.method, sampled.episodes, ties.unwrap_or_default()))
    };
    let methods: Vec<_> = report.results.iter().filter_map(described).collect();
    match methods.is_empty() {
        true => String::new(),
        false => format!("Episodes sampled from the lake, each run: {}.\n", methods.join("; ")),
    }
}

/// Mean and interval of a distance.
fn interval(summary: &Summary) -> String {
    match summary.ci95 {
        Some(ci95) => format!("{:.4} ± {ci95:.4}", summary.mean),
        None => format!("{:.4}", summary.mean),
    }
}

/// The lake in a frame: `content` draws the non-terminal cells, all equally large.
fn framed(map: &Map, content: impl Fn(usize) -> Vec<String>) -> Vec<String> {
    let sample = content(map.start());
    let (height, width) = (sample.len(), sample[0].chars().count());
    let drawn = |cell: usize| {
        let symbol = match map.cells()[cell] {
            Cell::Hole => '●',
            Cell::Goal => '★',
            Cell::Start | Cell::Frozen => return content(cell),
        };
        (0..height).map(|line| if line == height / 2 { centred(symbol, width) } else { " ".repeat(width) }).collect()
    };
    let rule = |left, right| format!("{left}{}{right}", "─".repeat(width * map.width() + 1));
    let mut lines = vec![rule('┌', '┐')];
    for row in 0..map.cells().len() / map.width() {
        let cells: Vec<_> = (row * map.width()..(row + 1) * map.width()).map(drawn).collect();
        lines.extend((0..height).map(|line| {
            let text: String = cells.iter().map(|cell| cell[line].as_str()).collect();
            format!("│{text} │")
        }));
    }
    lines.push(rule('└', '┘'));
    lines
}

fn centred(symbol: char, width: usize) -> String {
    let before = width / 2;
    format!("{}{symbol}{}", " ".repeat(before), " ".repeat(width - before - 1))
}
