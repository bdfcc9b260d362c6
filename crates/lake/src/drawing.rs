//! Lakes and tables as text.

use comfy_table::{CellAlignment, Table, presets};

use crate::environment::Environment;
use crate::map::{Action, Cell, Map};
use crate::measure::greedy_action;
use crate::report::{MethodReport, Report, Summary};
use crate::solver::{Solution, TransitionMatrix};
use crate::start::Start;

/// Columns that drawings may take beside one another.
const PAGE_WIDTH: usize = 120;

/// What a drawn lake shows.
pub const ARROWS: &str = "Arrows: the most probable action. ● hole, ★ goal.";
/// What the table's distance is.
pub const DISTANCE: &str = "\
Distance: mean squared error between the policy's T(a|s) and the optimal one over the non-terminal cells.
From above: mean difference from the row above over the same seeds, with its own 95% CI.";

/// The lake with one arrow a cell, the policy's most probable action.
pub fn arrows(map: &Map, policy: &TransitionMatrix) -> Vec<String> {
    framed(map, |cell| vec![format!(" {}", greedy_action(&policy[cell]).arrow())])
}

/// The lake with a number a cell.
pub fn values(map: &Map, value: &[f64]) -> Vec<String> {
    let text = |cell: usize| format!("{:.3}", value[cell]);
    let width = map.non_terminal().into_iter().map(|cell| text(cell).len()).max().unwrap_or(0);
    framed(map, |cell| vec![format!(" {:>width$}", text(cell))])
}

/// The lake with four numbers a cell, each on the side that its action goes to.
pub fn action_values(map: &Map, solution: &Solution, policy: &TransitionMatrix) -> Vec<String> {
    let text = |cell: usize, action: Action| format!("{:.2}", solution.action_value[cell][action as usize]);
    let all = map.non_terminal().into_iter().flat_map(|cell| Action::ALL.map(|action| text(cell, action).len()));
    let width = all.max().unwrap_or(0);
    let (before, after) = (width.div_ceil(2) + 3, width / 2 + 2);
    framed(map, |cell| {
        let q = |action: Action| format!("{:>width$}", text(cell, action));
        let centred = |action: Action| format!("{}{}{}", " ".repeat(before), q(action), " ".repeat(after));
        vec![
            centred(Action::Up),
            format!(" {} {} {} ", q(Action::Left), greedy_action(&policy[cell]).arrow(), q(Action::Right)),
            centred(Action::Down),
        ]
    })
}

/// T*, V* and Q* on the lake, those that fit the page; the others are named.
pub fn solution(map: &Map, solution: &Solution, policy: &TransitionMatrix) -> String {
    type Draw<'a> = Box<dyn Fn() -> Vec<String> + 'a>;
    // The fewest columns a cell: what fits not even so is not drawn to see.
    let drawings: [(&str, usize, Draw<'_>); 3] = [
        ("T*, most probable action", 2, Box::new(|| arrows(map, policy))),
        ("V*", 6, Box::new(|| values(map, &solution.value))),
        ("Q*, on the side of each action", 13, Box::new(|| action_values(map, solution, policy))),
    ];
    let (mut drawn, mut left_out) = (Vec::new(), Vec::new());
    for (title, columns, draw) in drawings {
        let fits = |columns: usize| columns <= PAGE_WIDTH && map.cells().len() / map.width() <= PAGE_WIDTH;
        let lines = if fits(columns * map.width() + 3) { draw() } else { Vec::new() };
        match lines.first() {
            Some(line) if fits(line.chars().count()) => drawn.push((title, lines)),
            _ => left_out.push(title.split(',').next().unwrap_or(title)),
        }
    }
    // Q* takes a row of its own.
    let rows = [&drawn[..drawn.len().min(2)], &drawn[drawn.len().min(2)..]];
    let mut page: String = rows.iter().filter(|row| !row.is_empty()).map(|row| side_by_side(row) + "\n").collect();
    if !left_out.is_empty() {
        page += &format!("{} too large to draw; --json has every number\n", left_out.join(", "));
    }
    page
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
    table.load_style(presets::NOTHING).set_header(header(report));
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
    let start = if recipe.start == Start::Random { String::new() } else { format!("start {}; ", recipe.start) };
    format!(
        "Frozen Lake {}, {}, discount {}; {} {}, {} steps of {} at {}; {}{}",
        map.name(),
        environment.dynamics(),
        recipe.gamma,
        recipe.seeds,
        if recipe.seeds == 1 { "seed" } else { "seeds" },
        recipe.steps,
        recipe.optimizer.name,
        recipe.learning_rate,
        start,
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

/// The table's columns.
pub fn header(report: &Report) -> [&'static str; 7] {
    // What a method starts from is an untrained policy, or what the methods before it left behind.
    let start = if report.results.iter().all(|result| result.after.is_empty()) { "untrained" } else { "at the start" };
    [
        "method",
        "distance (95% CI)",
        "from above (paired)",
        start,
        "success greedy/sampled",
        "return greedy/sampled",
        "cells visited",
    ]
}

/// One row a method, and the optimal policy's, under [`header`].
pub fn rows(map: &Map, report: &Report) -> Vec<[String; 7]> {
    let from_above = |place: usize| {
        let (above, own) = (&report.results[place.checked_sub(1)?].method, &report.results[place].method);
        let paired = report.paired.iter().find(|paired| paired.closer == *above && paired.further == *own)?;
        Some(format!("+{}", with_interval(paired.difference, paired.ci95)))
    };
    let row = |(place, result): (usize, &MethodReport)| {
        let fares = |greedy: f64, sampled: f64| format!("{greedy:.3} / {sampled:.3}");
        [
            result.method.clone(),
            interval(&result.distance),
            from_above(place).unwrap_or_default(),
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
        String::new(),
        fares(optimal.success_rate),
        fares(optimal.mean_return),
        String::new(),
    ];
    report.results.iter().enumerate().map(row).chain([best]).collect()
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
    with_interval(summary.mean, summary.ci95)
}

fn with_interval(mean: f64, ci95: Option<f64>) -> String {
    ci95.map_or(format!("{mean:.4}"), |ci95| format!("{mean:.4} ± {ci95:.4}"))
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
