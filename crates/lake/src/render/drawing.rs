//! Lakes and tables drawn as text.

use crate::audit::{Cosine, Explanation, Explored, Origin, Standing};
use crate::experiment::report::{MeasureReport, MethodReport, Optimal, Paired, PolicyReport, Report};
use crate::measure::statistics::{Curve, Summary};
use crate::policy::start::Start;
use crate::render::fitted::{self, COLUMNS, side_by_side};
use crate::render::number::{fixed, signed};
use crate::solver::Solution;
use crate::world::environment::Environment;
use crate::world::map::{Action, Cell, Map};
use crate::world::policy_table::TransitionMatrix;
use crate::world::policy_table::greedy_action;

/// Symbols of cells, the same in every drawing of a lake.
pub(crate) const START: char = '◆';
pub(crate) const HOLE: char = '●';
pub(crate) const GOAL: char = '★';

/// Caption of a drawn lake.
pub const ARROWS: &str = "Arrows: the most probable action. ◆ start, ● hole, ★ goal.";
/// Caption of the table's distance.
pub const DISTANCE: &str = "\
Distance: mean squared error between the policy's T(a|s) and the optimal one over the non-terminal cells.
From above: mean difference from the row above over the same seeds, with its own 95% CI.";

/// Caption of the reads in an explanation.
pub const READS: &str = "Reads of each cell by the training steps, mean over seeds.";
/// Number of moves that are shown of a longer trajectory.
const LONG: usize = 30;
/// Maximum number of methods with the same reads that are listed by name.
const FEW: usize = 4;

/// Draws the lake with one arrow per cell, the policy's most probable action.
pub fn arrows(map: &Map, policy: &TransitionMatrix) -> Vec<String> {
    framed(map, |cell| vec![format!(" {}", greedy_action(&policy[cell]).arrow())])
}

/// Draws the lake with one number per cell.
pub fn values(map: &Map, value: &[f64]) -> Vec<String> {
    let text = |cell: usize| fixed(value[cell], 3);
    let width = map.non_terminal().into_iter().map(|cell| text(cell).len()).max().unwrap_or(0);
    framed(map, |cell| vec![format!(" {:>width$}", text(cell))])
}

/// Draws the lake with four numbers per cell, each on the side of its action.
pub fn action_values(map: &Map, solution: &Solution, policy: &TransitionMatrix) -> Vec<String> {
    let text = |cell: usize, action: Action| fixed(solution.action_value[cell][action as usize], 2);
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

/// Draws T*, V* and Q* on the lake, as far as they fit this many columns, and names the others.
pub fn solution(map: &Map, solution: &Solution, policy: &TransitionMatrix, columns: usize) -> String {
    type Draw<'a> = Box<dyn Fn() -> Vec<String> + 'a>;
    // The minimum number of columns per cell avoids drawing what cannot fit.
    let drawings: [(&str, usize, Draw<'_>); 3] = [
        ("T*, most probable action", 2, Box::new(|| arrows(map, policy))),
        ("V*", 6, Box::new(|| values(map, &solution.value))),
        ("Q*, on the side of each action", 13, Box::new(|| action_values(map, solution, policy))),
    ];
    let (mut drawn, mut left_out) = (Vec::new(), Vec::new());
    for (title, least, draw) in drawings {
        let may_fit = least * map.width() + 3 <= columns && map.height() <= COLUMNS;
        let drawing = (title, if may_fit { draw() } else { Vec::new() });
        match side_by_side(std::slice::from_ref(&drawing), columns) {
            Some(_) if may_fit => drawn.push(drawing),
            _ => left_out.push(title.split(',').next().unwrap_or(title)),
        }
    }
    // Q* has a row of its own.
    let rows = [&drawn[..drawn.len().min(2)], &drawn[drawn.len().min(2)..]];
    let drawn = rows.iter().filter(|row| !row.is_empty()).filter_map(|row| side_by_side(row, columns));
    let mut page: String = drawn.map(|row| row + "\n").collect();
    if !left_out.is_empty() {
        let left_out =
            format!("{} too large to draw in {columns} columns; --json has every number", left_out.join(", "));
        page += &(fitted::text(&left_out, columns) + "\n");
    }
    page
}

/// Formats a report as text for a terminal of this many columns: the setting, the lakes with arrows, and one row per
/// method.
pub fn page(environment: &Environment, report: &Report, columns: usize) -> String {
    let map = environment.map();
    let table = fitted::table(&header(report), &rows(map, report), columns);
    let text = |text: &str| fitted::text(text, columns);
    let title = text(&title(environment, report));
    let lakes = lakes(map, policies(report), &report.optimal, columns);
    let (arrows, distance, episodes) = (text(ARROWS), text(DISTANCE), text(&episodes(report)));
    let why = explanation(map, report, columns);
    format!("{title}\n\n{lakes}\n{table}\n\n{arrows}\n{distance}\n{episodes}{why}")
}

/// Describes the setting in one line.
pub fn title(environment: &Environment, report: &Report) -> String {
    let (map, recipe) = (environment.map(), &report.recipe);
    let trajectories: Vec<_> =
        report.trajectories.iter().map(|(role, word)| format!("{role} {}", shortened(word))).collect();
    let start = if recipe.start == Start::Random { String::new() } else { format!("start {}; ", recipe.start) };
    let target = if recipe.parameterised_target { "parameterised target; " } else { "" };
    format!(
        "Frozen Lake {}, {}, discount {}; {} {}, {} steps of {} at {}; {}{}{}",
        map.name(),
        environment.dynamics(),
        recipe.gamma,
        recipe.seeds,
        if recipe.seeds == 1 { "seed" } else { "seeds" },
        recipe.steps,
        recipe.optimizer.name(),
        recipe.learning_rate,
        start,
        target,
        trajectories.join(", "),
    )
}

/// The word of a trajectory; of a long one, its beginning and its length.
pub(crate) fn shortened(word: &str) -> String {
    match word.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}... ({} moves)", &word[..end], word.chars().count()),
        None => word.to_owned(),
    }
}

/// Draws the most probable actions of every method's policy and of the optimal one, as far as they fit this many
/// columns.
pub fn lakes<'a>(
    map: &Map,
    policies: impl Iterator<Item = &'a PolicyReport>,
    optimal: &Optimal,
    columns: usize,
) -> String {
    let mut drawings: Vec<_> =
        policies.map(|policy| (policy.method.as_str(), arrows(map, &policy.transition_matrix))).collect();
    drawings.push(("optimal", arrows(map, &optimal.transition_matrix)));
    side_by_side(&drawings, columns).unwrap_or_else(|| too_large(columns))
}

fn too_large(columns: usize) -> String {
    fitted::text(&format!("The lake is too large to draw in {columns} columns; --json has every number."), columns)
        + "\n"
}

/// Formats a report about policies from files, as text for a terminal of this many columns.
pub fn measure_page(environment: &Environment, report: &MeasureReport, columns: usize) -> String {
    let map = environment.map();
    let shared = shared(report.results.iter(), &report.paired, &report.optimal);
    let counts = report.results.iter().map(|policy| policy.policies.len().to_string()).chain([String::new()]);
    let rows: Vec<_> = shared
        .into_iter()
        .zip(counts)
        .map(|([method, distance, from_above, success, mean_return], count)| {
            [method, distance, from_above, count, success, mean_return]
        })
        .collect();
    let header = [
        "method",
        "distance (95% CI)",
        "from above (paired)",
        "policies",
        "success greedy/sampled",
        "return greedy/sampled",
    ];
    let text = |text: &str| fitted::text(text, columns);
    let (table, title) = (fitted::table(&header, &rows, columns), text(&measure_title(environment, report)));
    let lakes = lakes(map, report.results.iter(), &report.optimal, columns);
    format!("{title}\n\n{lakes}\n{table}\n\n{}\n{}\n", text(ARROWS), text(DISTANCE))
}

/// Describes the lake in one line.
pub fn measure_title(environment: &Environment, report: &MeasureReport) -> String {
    let field = |name: &str| report.lake.get(name).map(ToString::to_string).unwrap_or_default();
    let target = if field("parameterised_target") == "true" { "; parameterised target" } else { "" };
    let name = environment.map().name();
    format!("Frozen Lake {name}, {}, discount {}{target}", environment.dynamics(), field("gamma"))
}

/// Name of the policies before training.
pub fn start(report: &Report) -> &'static str {
    let untrained = report.recipe.start == Start::Random && report.results.iter().all(|result| result.after.is_empty());
    if untrained { "untrained" } else { "at the start" }
}

/// Titles of the table's columns.
pub fn header(report: &Report) -> [&'static str; 7] {
    let start = start(report);
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

/// One row per method and one of the optimal policy, under [`header`].
pub fn rows(map: &Map, report: &Report) -> Vec<[String; 7]> {
    let shared = shared(policies(report), &report.paired, &report.optimal);
    let own = |result: &MethodReport| {
        let visited = format!("{:.1} of {}", result.cells_visited.mean, map.cells().len());
        [interval(&result.initial_distance), visited]
    };
    let own = report.results.iter().map(own).chain([[String::new(), String::new()]]);
    shared
        .into_iter()
        .zip(own)
        .map(|([method, distance, from_above, success, mean_return], [initial, visited])| {
            [method, distance, from_above, initial, success, mean_return, visited]
        })
        .collect()
}

/// Policies of a report's methods.
pub fn policies(report: &Report) -> impl Iterator<Item = &PolicyReport> {
    report.results.iter().map(|result| &result.policy)
}

/// Columns that every table has: name, distance, distance from the row above, success rates, returns. The last row is
/// that of the optimal policy.
fn shared<'a>(
    policies: impl Iterator<Item = &'a PolicyReport>,
    paired: &[Paired],
    optimal: &Optimal,
) -> Vec<[String; 5]> {
    let difference = |paired: &Paired| {
        let Paired { difference, ci95, .. } = paired;
        ci95.map_or(signed(*difference, 4), |ci95| format!("{} ± {}", signed(*difference, 4), fixed(ci95, 4)))
    };
    let mut above: Option<&str> = None;
    let row = |policy: &'a PolicyReport| {
        let is_from_above = |paired: &&Paired| Some(paired.closer.as_str()) == above && paired.further == policy.method;
        let from_above = paired.iter().find(is_from_above);
        above = Some(&policy.method);
        let fares = |greedy: f64, sampled: f64| format!("{} / {}", fixed(greedy, 3), fixed(sampled, 3));
        [
            policy.method.clone(),
            interval(&policy.distance),
            from_above.map_or(String::new(), difference),
            fares(policy.success_rate.greedy, policy.success_rate.sampled),
            fares(policy.mean_return.greedy, policy.mean_return.sampled),
        ]
    };
    let fares = |value: f64| fixed(value, 3);
    let best =
        ["optimal".to_owned(), "0".to_owned(), String::new(), fares(optimal.success_rate), fares(optimal.mean_return)];
    policies.map(row).chain([best]).collect()
}

/// Describes the episodes that methods sampled from the lake, besides or instead of the trajectories.
pub fn episodes(report: &Report) -> String {
    let described = |result: &MethodReport| {
        let sampled = result.sampled.as_ref()?;
        let ties = sampled.ties.as_ref().map(|ties| format!(", {:.1} samples without a pair", ties.mean));
        Some(format!("{} {}{}", result.policy.method, sampled.episodes, ties.unwrap_or_default()))
    };
    let methods: Vec<_> = report.results.iter().filter_map(described).collect();
    match methods.is_empty() {
        true => String::new(),
        false => format!("Episodes sampled from the lake, each run: {}.\n", methods.join("; ")),
    }
}

/// A table of an explanation, with one row per method.
pub struct Part {
    /// Title of the table.
    pub title: &'static str,
    /// Description of the table's numbers.
    pub note: &'static str,
    /// Titles of the columns.
    pub header: Vec<String>,
    /// Rows of the table.
    pub rows: Vec<Vec<String>>,
}

/// Methods with the same reads during training.
pub struct SameReads<'a> {
    /// Labels of the methods.
    pub methods: Vec<&'a str>,
    /// Reads that the methods have in common.
    pub explored: &'a [Explored],
}

/// Formats the report's explanation as text for a terminal of this many columns; empty for a report without one.
pub fn explanation(map: &Map, report: &Report, columns: usize) -> String {
    let mut text = String::new();
    let groups = same_reads(report);
    let named = |group: &SameReads<'_>, explored: &Explored| {
        let name = match group.methods.as_slice() {
            [first, others @ ..] if others.len() >= FEW => format!("{first} and {} others", others.len()),
            few => few.join(", "),
        };
        format!("{name}: {}", explored.origin.name())
    };
    let drawings: Vec<_> = groups
        .iter()
        .flat_map(|group| group.explored.iter().map(move |explored| (group, explored)))
        .map(|(group, explored)| (named(group, explored), reads(map, explored)))
        .collect();
    let drawings: Vec<_> = drawings.iter().map(|(title, lines)| (title.as_str(), lines.clone())).collect();
    if !drawings.is_empty() {
        let drawn = side_by_side(&drawings, columns).unwrap_or_else(|| too_large(columns));
        text += &format!("\n{}\n\n{drawn}", fitted::text(READS, columns));
    }
    for Part { title, note, header, rows } in explanation_parts(report) {
        let (title, note) = (fitted::text(title, columns), fitted::text(note, columns));
        text += &format!("\n{title}\n{note}\n\n{}\n", fitted::table(&header, &rows, columns));
    }
    text
}

/// Groups methods by their reads, in the order of the report's rows.
pub fn same_reads(report: &Report) -> Vec<SameReads<'_>> {
    let mut groups: Vec<SameReads<'_>> = Vec::new();
    for result in &report.results {
        let Some(Explanation { explored, .. }) = &result.explanation else { continue };
        match groups.iter_mut().find(|group| group.explored == explored) {
            Some(group) => group.methods.push(&result.policy.method),
            None => groups.push(SameReads { methods: vec![&result.policy.method], explored }),
        }
    }
    groups
}

/// Draws the lake with the number of reads per cell.
fn reads(map: &Map, explored: &Explored) -> Vec<String> {
    let text = |cell: usize| match explored.reads[cell] {
        0.0 => "·".to_owned(),
        // Rare reads are shown as at least 0.1.
        reads => format!("{:.1}", reads.max(0.1)),
    };
    let width = (0..map.cells().len()).map(|cell| text(cell).chars().count()).max().unwrap_or(0);
    framed(map, |cell| vec![format!(" {:>width$}", text(cell))])
}

/// Tables of the explanation; empty if there is none.
pub fn explanation_parts(report: &Report) -> Vec<Part> {
    let explained: Vec<_> = report
        .results
        .iter()
        .filter_map(|result| Some((result.policy.method.as_str(), result.explanation.as_ref()?)))
        .collect();
    if explained.is_empty() {
        return Vec::new();
    }
    let part = |title, note, columns: &[&str], row: &dyn Fn(&Explanation) -> Vec<String>| Part {
        title,
        note,
        header: std::iter::once("method").chain(columns.iter().copied()).map(str::to_owned).collect(),
        rows: explained
            .iter()
            .map(|(method, explanation)| std::iter::once((*method).to_owned()).chain(row(explanation)).collect())
            .collect(),
    };
    type Number = fn(&Standing<Summary, Cosine>) -> Option<&Summary>;
    let both = |explanation: &Explanation, number: Number| {
        [&explanation.before, &explanation.trained]
            .map(|standing| number(standing).map_or("none".to_owned(), |summary| rounded(summary, 4)))
    };

    let of = |explanation: &Explanation, origin: Origin| -> Option<f64> {
        Some(explanation.explored.iter().find(|explored| explored.origin == origin)?.reached.mean)
    };
    let given = |origin: &Origin| explained.iter().any(|(_, explanation)| of(explanation, *origin).is_some());
    let origins: Vec<_> = Origin::ALL.into_iter().filter(given).collect();
    let columns: Vec<_> = origins.iter().map(|origin| origin.name()).chain(["together"]).collect();
    let mut parts = vec![
        part(
            "Cells that the training read",
            "Share of the non-terminal cells, by the origin of the reads.",
            &columns,
            &|explanation| {
                let shares = origins.iter().map(|origin| of(explanation, *origin));
                let share = |share: Option<f64>| share.map_or(String::new(), |share| format!("{share:.3}"));
                shares.map(share).chain([rounded(&explanation.reached, 3)]).collect()
            },
        ),
        part(
            "Where the remaining distance is",
            "Parts that add up to the distance: of the demonstration's cells, of others that the training read, and of those never read.",
            &["demonstrated", "otherwise read", "never read"],
            &|Explanation { distance, .. }| {
                [&distance.demonstrated, &distance.otherwise_read, &distance.unread].map(interval).to_vec()
            },
        ),
        part(
            "States that the training read, compared with those that the policy visits",
            "q and d: shares of the cells in the reads and in the policy's expected visits. Overlap is Σ min(q, d); KL in nats.",
            &["overlap before", "trained", "KL(q || d) before", "trained"],
            &|explanation| {
                let overlap = both(explanation, |standing| standing.overlap.as_ref());
                [overlap, both(explanation, |standing| standing.divergence.as_ref())].concat()
            },
        ),
        part(
            "Bias of the preference estimate",
            "Total variation distance between the states that the objective weighs and those that the policy visits, mean over the\n\
             times of the demonstration; and the demonstration's probability, the product of π(a*|s*).",
            &["bias before", "trained", "π(demonstration) before", "trained"],
            &|explanation| {
                let bias = both(explanation, |standing| standing.bias.as_ref());
                [bias, both(explanation, |standing| Some(&standing.demonstration_probability))].concat()
            },
        ),
        part(
            "Bellman residual along the demonstration",
            "max π(a|s*) V(next) - V(here), with V the probability of the remaining moves: 0 where the demonstrated action is greedy.",
            &["greatest before", "trained", "mean before", "trained"],
            &|explanation| {
                let greatest = both(explanation, |standing| Some(&standing.greatest_residual));
                [greatest, both(explanation, |standing| Some(&standing.mean_residual))].concat()
            },
        ),
    ];
    if explained.iter().any(|(_, explanation)| explanation.displacement.is_some()) {
        parts.push(part(
            "Displacement",
            "log π of the chosen and the rejected trajectory, nats; and the share of the runs in which the chosen one fell although\n\
             the margin between them grew.",
            &["chosen before", "trained", "rejected before", "trained", "margin's change", "displaced"],
            &|explanation| {
                let Some(displacement) = &explanation.displacement else { return vec![String::new(); 6] };
                let ends = |curve: &Curve| {
                    [curve.mean.first(), curve.mean.last()].map(|mean| mean.map_or(String::new(), |mean| fixed(*mean, 3)))
                };
                let change = rounded(&displacement.margin_change, 3);
                let displaced = format!("{:.3}", displacement.displaced);
                [&ends(&displacement.chosen)[..], &ends(&displacement.rejected), &[change, displaced]].concat()
            },
        ));
    }
    if explained.len() > 1 {
        type Moment = fn(&Explanation) -> &Standing<Summary, Cosine>;
        let titled: [(_, _, Moment); 2] = [
            (
                "Cosine of gradients before training",
                "Between the row's method and each other one, at the policy before the row's training.",
                |explanation| &explanation.before,
            ),
            (
                "Cosine of gradients after training",
                "Between the row's method and each other one, at the policy after the row's training.",
                |explanation| &explanation.trained,
            ),
        ];
        let methods: Vec<_> = explained.iter().map(|(method, _)| *method).collect();
        for (title, note, standing) in titled {
            let mut part = part(title, note, &methods, &|_| Vec::new());
            for (row, (method, explanation)) in part.rows.iter_mut().zip(&explained) {
                row.extend(methods.iter().map(|other| cosine(standing(explanation), method, other)));
            }
            parts.push(part);
        }
    }
    parts
}

/// Formats the cosine of two methods' gradients; a dash for a method with itself.
fn cosine(standing: &Standing<Summary, Cosine>, method: &str, other: &str) -> String {
    if method == other {
        return "-".to_owned();
    }
    let is_theirs = |between: &[String; 2]| between.iter().all(|label| [method, other].contains(&label.as_str()));
    let mean = standing.cosines.iter().find(|cosine| is_theirs(&cosine.between)).and_then(|cosine| cosine.mean);
    mean.map_or("undefined".to_owned(), |mean| fixed(mean, 3))
}

/// Formats mean and interval of a distance.
fn interval(summary: &Summary) -> String {
    rounded(summary, 4)
}

/// Formats mean and interval with this many decimals.
fn rounded(summary: &Summary, decimals: usize) -> String {
    let mean = fixed(summary.mean, decimals);
    summary.ci95.map_or(mean.clone(), |ci95| format!("{mean} ± {}", fixed(ci95, decimals)))
}

/// Draws the lake in a frame: `content` draws the non-terminal cells, all equally large. The start's symbol replaces
/// its first space.
fn framed(map: &Map, content: impl Fn(usize) -> Vec<String>) -> Vec<String> {
    let sample = content(map.start());
    let (height, width) = (sample.len(), sample[0].chars().count());
    let drawn = |cell: usize| {
        let symbol = match map.cells()[cell] {
            Cell::Hole => HOLE,
            Cell::Goal => GOAL,
            Cell::Frozen => return content(cell),
            Cell::Start => {
                let mut lines = content(cell);
                let marked = lines[0].strip_prefix(' ').map(|rest| format!("{START}{rest}"));
                lines[0] = marked.unwrap_or_else(|| lines[0].clone());
                return lines;
            }
        };
        (0..height).map(|line| if line == height / 2 { centred(symbol, width) } else { " ".repeat(width) }).collect()
    };
    let rule = |left, right| format!("{left}{}{right}", "─".repeat(width * map.width() + 1));
    let mut lines = vec![rule('┌', '┐')];
    for row in 0..map.height() {
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
