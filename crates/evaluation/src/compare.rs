//! Results of lm-evaluation-harness for several methods, side by side: the table of the paper that introduces IFT.
//!
//! The input is the harness's files `results_*.json` (tested with 0.4.13). Their scores are shares in [0, 1]; the table
//! shows percent. The paper does not name the metrics of its columns; these are the customary ones.

pub mod figure;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

use text::data::regular;
use text::error::{TextError, refuse};

/// A benchmark of the paper, which is a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Benchmark {
    /// Name of the benchmark in the paper.
    pub title: &'static str,
    /// Task or group of the harness.
    pub task: &'static str,
    /// Metric of the harness.
    pub metric: &'static str,
    /// Filter of the harness that is applied before the metric.
    pub filter: &'static str,
}

/// The columns of the paper's Table 2, in the table's order.
pub const BENCHMARKS: [Benchmark; 6] = [
    Benchmark { title: "ARC", task: "arc_challenge", metric: "acc_norm", filter: "none" },
    Benchmark { title: "ARC-Gen", task: "arc_challenge_chat", metric: "exact_match", filter: "remove_whitespace" },
    Benchmark { title: "MMLU", task: "mmlu", metric: "acc", filter: "none" },
    Benchmark { title: "TruthfulQA", task: "truthfulqa_mc2", metric: "acc", filter: "none" },
    Benchmark { title: "WinoGrande", task: "winogrande", metric: "acc", filter: "none" },
    Benchmark { title: "GSM8K", task: "gsm8k", metric: "exact_match", filter: "strict-match" },
];

/// A score with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Mean score, a share in [0, 1].
    pub mean: f64,
    /// Standard error of the mean, if the harness reports one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
}

/// Scores of one method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the method.
    pub name: String,
    /// Score of each benchmark, in the order of [`Comparison::benchmarks`]; `None` for a benchmark that was not run.
    pub scores: Vec<Option<Score>>,
    /// Average over the benchmarks of the table; `None` if one of them was not run.
    pub average: Option<Score>,
}

/// Scores of several methods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The titles of the benchmarks that at least one method was run on.
    pub benchmarks: Vec<&'static str>,
    /// Scores of the methods, in the order in which they were given.
    pub rows: Vec<Row>,
    /// The method with the best average, and the first such method on ties.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<String>,
}

/// The result of a task in a file.
struct Found {
    path: PathBuf,
    score: Score,
    /// Conditions of the task's run. Scores under different conditions are not comparable.
    conditions: BTreeMap<&'static str, Value>,
}

impl Comparison {
    /// Reads the results of methods by their names, each from a file of the harness or from all files of a folder. If
    /// several files contain a task, the last one by name counts, which is the newest.
    ///
    /// # Errors
    ///
    /// [`TextError::File`], [`TextError::Json`] and [`TextError::Field`] for invalid files; [`TextError::Record`] for a
    /// duplicate name, a method without any of the benchmarks, and two methods with different conditions.
    pub fn read(methods: &[(String, PathBuf)]) -> Result<Self, TextError> {
        let mut found: Vec<(&str, Vec<Option<Found>>)> = Vec::new();
        for (name, path) in methods {
            if found.iter().any(|(other, _)| other == name) {
                return Err(refuse("name", "distinct names; NAME=PATH sets the name", format!("{name} twice")));
            }
            let mut own: Vec<Option<Found>> = BENCHMARKS.iter().map(|_| None).collect();
            for file in results(path)? {
                let text = std::io::read_to_string(regular(&file)?)
                    .map_err(|source| TextError::File { path: file.clone(), source })?;
                let content: Value = strict_json::from_str(&text).map_err(|source| TextError::Json {
                    path: file.clone(),
                    field: ".".to_owned(),
                    source,
                })?;
                for (benchmark, own) in BENCHMARKS.iter().zip(&mut own) {
                    if let Some(found) = benchmark.find(&file, &content)? {
                        *own = Some(found);
                    }
                }
            }
            if own.iter().all(Option::is_none) {
                let tasks: Vec<_> = BENCHMARKS.iter().map(|benchmark| benchmark.task).collect();
                let given = format!("none in {}", path.display());
                return Err(refuse(name, format!("results of any of {}", tasks.join(", ")), given));
            }
            found.push((name, own));
        }
        let is_run = |column: usize| found.iter().any(|(_, own)| own[column].is_some());
        let columns: Vec<usize> = (0..BENCHMARKS.len()).filter(|column| is_run(*column)).collect();
        for column in &columns {
            are_alike(BENCHMARKS[*column].task, found.iter().filter_map(|(_, own)| own[*column].as_ref()))?;
        }
        let rows: Vec<_> = found
            .iter()
            .map(|(name, own)| {
                let scores: Vec<_> = columns.iter().map(|column| own[*column].as_ref().map(|it| it.score)).collect();
                Row { name: (*name).to_owned(), average: average(&scores), scores }
            })
            .collect();
        let best = rows.iter().filter_map(|row| Some((row, row.average?.mean)));
        let best = best.reduce(|best, row| if row.1 > best.1 { row } else { best }).map(|(row, _)| row.name.clone());
        Ok(Self { benchmarks: columns.iter().map(|column| BENCHMARKS[*column].title).collect(), rows, best })
    }
}

/// The result files of a folder in the order of their names, each of which begins with the model and ends with the
/// time; or the given file.
fn results(path: &Path) -> Result<Vec<PathBuf>, TextError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, &mut HashSet::new(), &mut files)?;
    // Sorts by the time in the file's name, not by folder.
    files.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
    Ok(files)
}

/// Adds the result files of a folder and its sub-folders. A folder that links lead to repeatedly is read once, so that
/// a cycle of links ends.
fn collect(folder: &Path, seen: &mut HashSet<PathBuf>, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    let fail = |source| TextError::File { path: folder.to_owned(), source };
    if !seen.insert(folder.canonicalize().map_err(fail)?) {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).map_err(fail)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            // The harness makes a folder for each model.
            collect(&path, seen, files)?;
        } else if name.starts_with("results_") && name.ends_with(".json") {
            files.push(path);
        }
    }
    Ok(())
}

impl Benchmark {
    fn find(&self, path: &Path, content: &Value) -> Result<Option<Found>, TextError> {
        let Self { task, metric, filter, .. } = self;
        let refuse = |field: String, allowed: &str, given: Option<&Value>| TextError::Field {
            path: path.to_owned(),
            field,
            allowed: allowed.to_owned(),
            given: given.map_or_else(|| "nothing".to_owned(), ToString::to_string),
        };
        let all = content.get("results").and_then(Value::as_object);
        let all =
            all.ok_or_else(|| refuse("results".to_owned(), "the harness's table of tasks", content.get("results")))?;
        let Some(scores) = all.get(*task) else { return Ok(None) };
        let name = format!("{metric},{filter}");
        let given = scores.get(&name);
        let mean = given.and_then(Value::as_f64).filter(|mean| (0.0..=1.0).contains(mean));
        let mean = mean.ok_or_else(|| refuse(format!("results.{task}.{name}"), "a number in [0, 1]", given))?;
        // The harness writes N/A if it did not estimate one.
        let stderr = scores.get(format!("{metric}_stderr,{filter}")).and_then(Value::as_f64);
        let conditions = [("version", "versions"), ("n-shot", "n-shot"), ("samples", "n-samples")];
        let conditions = conditions.into_iter().filter_map(|(what, table)| {
            let value = content.get(table)?.get(*task)?;
            Some((what, value.get("effective").unwrap_or(value).clone()))
        });
        Ok(Some(Found { path: path.to_owned(), score: Score { mean, stderr }, conditions: conditions.collect() }))
    }
}

fn are_alike<'a>(task: &str, mut found: impl Iterator<Item = &'a Found>) -> Result<(), TextError> {
    let Some(first) = found.next() else { return Ok(()) };
    for other in found {
        for (what, value) in &first.conditions {
            if let Some(given) = other.conditions.get(what).filter(|given| *given != value) {
                let allowed = format!("{value}, as in {}", first.path.display());
                return Err(refuse(
                    &format!("{task}: {what}"),
                    allowed,
                    format!("{given} in {}", other.path.display()),
                ));
            }
        }
    }
    Ok(())
}

/// Average of the scores, and its standard error for independent benchmarks.
fn average(scores: &[Option<Score>]) -> Option<Score> {
    let scores: Vec<Score> = scores.iter().copied().collect::<Option<_>>()?;
    let count = scores.len() as f64;
    let variance: Option<f64> = scores.iter().map(|score| score.stderr.map(|stderr| stderr * stderr)).sum();
    let mean = scores.iter().map(|score| score.mean).sum::<f64>() / count;
    Some(Score { mean, stderr: variance.map(|variance| variance.sqrt() / count) })
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", 100.0 * self.mean)?;
        self.stderr.map_or(Ok(()), |stderr| write!(f, " ± {:.2}", 100.0 * stderr))
    }
}

/// Formats the comparison as a Markdown table.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { benchmarks, rows, .. } = self;
        let mut table = Table::new();
        let header = ["method"].into_iter().chain(benchmarks.iter().copied()).chain(["average"]);
        table.load_style(presets::ASCII_MARKDOWN).set_header(header);
        // The best score of each column is highlighted.
        let column = |index: usize| move |row: &Row| row.scores.get(index).copied().unwrap_or(row.average);
        let most = |index: usize| rows.iter().filter_map(column(index)).map(|score| score.mean).reduce(f64::max);
        for row in rows {
            let cells = (0..=benchmarks.len()).map(|index| match column(index)(row) {
                None => String::new(),
                Some(score) if rows.len() > 1 && Some(score.mean) == most(index) => format!("**{score}**"),
                Some(score) => score.to_string(),
            });
            table.add_row([row.name.clone()].into_iter().chain(cells));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn score(mean: f64, stderr: f64) -> Score {
        Score { mean, stderr: Some(stderr) }
    }

    #[test]
    fn an_average_is_there_where_all_parts_are_and_as_uncertain_as_they_are_together() {
        let of = |scores: &[Score]| average(&scores.iter().copied().map(Some).collect::<Vec<_>>());
        let two = of(&[score(0.5, 0.03), score(0.7, 0.04)]).unwrap();
        assert!((two.mean - 0.6).abs() < 1e-15 && (two.stderr.unwrap() - 0.025).abs() < 1e-15, "{two:?}");
        assert_eq!(of(&[score(0.5, 0.03), Score { mean: 0.7, stderr: None }]).unwrap().stderr, None);
        assert_eq!(average(&[Some(score(0.5, 0.0)), None]), None);
    }

    fn write(folder: &Path, name: &str, content: &Value) -> PathBuf {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content.to_string()).unwrap();
        path
    }

    fn arc(mean: f64, shots: u64) -> Value {
        json!({
            "results": {"arc_challenge": {"alias": "arc_challenge", "acc,none": 0.1, "acc_norm,none": mean, "acc_norm_stderr,none": 0.01}},
            "versions": {"arc_challenge": 1.0}, "n-shot": {"arc_challenge": shots},
            "n-samples": {"arc_challenge": {"original": 1172, "effective": 1172}}
        })
    }

    fn truthful(mean: f64) -> Value {
        json!({"results": {"truthfulqa_mc2": {"acc,none": mean, "acc_stderr,none": "N/A"}}})
    }

    #[test]
    fn results_of_a_folder_are_put_together_and_the_newest_count() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "sft/b/results_2026-01-02T00.json", &arc(0.5, 25));
        write(folder.path(), "sft/a/results_2026-01-03T00.json", &arc(0.25, 25));
        write(folder.path(), "sft/a/results_2026-01-01T00.json", &truthful(0.75));
        write(folder.path(), "sft/a/samples_arc.json", &json!([]));
        let ift = write(folder.path(), "ift.json", &arc(0.375, 25));
        let methods = [("sft".to_owned(), folder.path().join("sft")), ("ift".to_owned(), ift)];
        let comparison = Comparison::read(&methods).unwrap();
        assert_eq!(comparison.benchmarks, ["ARC", "TruthfulQA"]);
        assert_eq!(comparison.best.as_deref(), Some("sft"));
        let said = comparison.to_string();
        let cells: Vec<Vec<&str>> =
            said.lines().map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
        assert_eq!(cells[0], ["method", "ARC", "TruthfulQA", "average"]);
        assert_eq!(cells[2], ["sft", "25.00 ± 1.00", "**75.00**", "**50.00**"]);
        assert_eq!(cells[3], ["ift", "**37.50 ± 1.00**"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_circle_of_links_among_folders_ends() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a/results_1.json", &arc(0.5, 25));
        for (target, link) in [("..", "a/up"), (".", "a/here"), ("../a", "a/again"), ("missing", "a/dangling")] {
            std::os::unix::fs::symlink(target, folder.path().join(link)).unwrap();
        }
        let comparison = Comparison::read(&[("sft".to_owned(), folder.path().to_owned())]).unwrap();
        assert_eq!(comparison.rows[0].scores, [Some(score(0.5, 0.01))]);
        let loop_ = folder.path().join("loop");
        std::os::unix::fs::symlink("loop", &loop_).unwrap();
        assert!(Comparison::read(&[("a".to_owned(), loop_)]).is_err());
    }

    #[track_caller]
    fn refused(methods: &[(&str, PathBuf)], message: &str) {
        let methods: Vec<_> = methods.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
        let error = Comparison::read(&methods).unwrap_err().to_string();
        assert!(error.ends_with(message), "{error}");
    }

    #[test]
    fn what_is_no_result_and_what_cannot_be_compared_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &Value| write(folder.path(), name, content);
        let (many, none) = (file("many.json", &arc(0.5, 25)), file("none.json", &arc(0.5, 0)));
        refused(
            &[("a", many.clone()), ("a", none.clone())],
            "name: expected distinct names; NAME=PATH sets the name, got a twice",
        );
        let expected =
            format!("arc_challenge: n-shot: expected 25, as in {}, got 0 in {}", many.display(), none.display());
        refused(&[("a", many), ("b", none)], &expected);
        let other = file("other.json", &json!({"results": {"boolq": {"acc,none": 0.5}}}));
        let tasks = "arc_challenge, arc_challenge_chat, mmlu, truthfulqa_mc2, winogrande, gsm8k";
        refused(
            &[("a", other.clone())],
            &format!("a: expected results of any of {tasks}, got none in {}", other.display()),
        );
        refused(&[("a", file("list.json", &json!([])))], "results: expected the harness's table of tasks, got nothing");
        refused(
            &[("a", file("word.json", &truthful(7.0)))],
            "results.truthfulqa_mc2.acc,none: expected a number in [0, 1], got 7.0",
        );
    }
}
