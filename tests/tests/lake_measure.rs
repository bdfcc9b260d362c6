//! Measurement of policies from other programs, and export of the lake as conversations.

use std::path::{Path, PathBuf};

use lake::map::{ACTIONS, Action, Map};
use lake::measure::greedy_action;
use lake::policy_file;
use lake::recipe::{Overrides, Recipe};
use lake::setting::Setting;
use lake::solver::{TransitionMatrix, uniform_policy};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::command::{fails, json as answer, succeeds};

fn write(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn setting(map: &str) -> Setting {
    Setting::new(&recipe(map)).unwrap()
}

fn recipe(map: &str) -> Recipe {
    let fields = toml::Table::from_iter([("map".to_owned(), map.into())]);
    Recipe::resolve(None, &Overrides { fields, ..Overrides::default() }).unwrap()
}

/// Lines of JSON.
fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn export(folder: &TempDir, arguments: &[&str]) -> PathBuf {
    let out = folder.path().join("data");
    succeeds(&[&["export", out.to_str().unwrap()], arguments].concat());
    out
}

/// Output of `lm score` for a model that has this policy, but gives most of its probability to texts other than
/// actions.
fn scores(map: &Map, policy: &TransitionMatrix) -> String {
    let line = |cell: usize| {
        let completions = policy[cell].iter().enumerate().map(|(action, probability)| {
            let sum = probability.max(1e-300).ln() - 3.0;
            json!({"response_ids": [7 + action, 2], "log_prob": [sum, 0.0], "sum": sum})
        });
        json!({"completions": completions.collect::<Vec<_>>()}).to_string() + "\n"
    };
    map.non_terminal().into_iter().map(line).collect()
}

#[test]
fn the_lakes_own_policies_have_the_very_figures_of_their_runs() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    for lake in [
        &["--map", "4x4"][..],
        &["--map", "8x8", "--slippery", "--target", "soft", "--reward-schedule", "1,-1,-0.01"],
        &["--recipe", "experiments/figure3.toml"],
    ] {
        let training = ["--method", "sft,dpo", "--seeds", "3", "--seed", "5", "--steps", "40", "--policies"];
        let own = answer(&[lake, &training, &[policies.to_str().unwrap()]].concat());
        // The whole recipe, as a parameterised target is fitted from the first seed on.
        let recipe = write(&folder, "recipe.toml", toml::to_string(&own["recipe"]).unwrap());
        let runs = ["dpo", "sft"].into_iter().flat_map(|method| (5..8).map(move |seed| (method, seed)));
        let runs = runs.map(|(method, seed)| format!("--policy={method}={}/{method}-{seed}.csv", policies.display()));
        let runs: Vec<_> = runs.collect();
        let runs: Vec<_> = runs.iter().map(String::as_str).collect();
        let measured = answer(&[&["measure", "--recipe", &recipe], &runs[..]].concat());
        assert_eq!(measured["paired"], own["paired"]);
        assert_eq!(measured["optimal"], own["optimal"]);
        let (measured, own) = (measured["results"].as_array().unwrap(), own["results"].as_array().unwrap());
        assert_eq!(measured.len(), 2);
        for (measured, own) in measured.iter().zip(own) {
            for field in ["method", "distance", "success_rate", "return"] {
                assert_eq!(measured[field], own[field], "{lake:?}: {field}");
            }
        }
    }
}

#[test]
fn a_page_of_measured_policies_is_the_runs_page_where_both_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [policies, out] = ["policies", "out"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let own = succeeds(&["--method", "sft", "--seeds", "2", "--steps", "30", "--policies", &policies]);
    let runs = [0, 1].map(|seed| format!("sft={policies}/sft-{seed}.csv"));
    let page = succeeds(&["measure", "--policy", &runs[0], "--policy", &runs[1], "--out", &out]);
    let drawn = |page: &str| page.lines().skip(2).take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(drawn(&page), drawn(&own));
    let row = |page: &str| page.lines().find(|line| line.trim_start().starts_with("sft ")).unwrap().to_owned();
    let [row, own] = [row(&page), row(&own)];
    let words = |row: &str| row.split_whitespace().take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&row), words(&own));
    let mut files: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["distance.png", "distance.svg", "policy-sft.png", "policy-sft.svg", "result.json"]);
    let result: Value = serde_json::from_slice(&std::fs::read(Path::new(&out).join("result.json")).unwrap()).unwrap();
    assert_eq!(result["lake"]["map"], "4x4");
    assert_eq!(result["results"][0]["distance"]["per_seed"].as_array().unwrap().len(), 2);
}

#[test]
fn the_optimal_policy_is_at_no_distance_and_the_uniform_one_at_three_sixteenths() {
    let folder = tempfile::tempdir().unwrap();
    for map in ["4x4", "8x8"] {
        let setting = setting(map);
        let lake = setting.environment().map();
        let files = [
            ("best", setting.optimal().clone()),
            // By (1 - 1/4)² + 3 (1/4)² = 3/4 a cell, over four actions.
            ("even", uniform_policy(lake)),
        ]
        .map(|(name, policy)| {
            let file = write(&folder, &format!("{name}.csv"), policy_file::write(lake, &policy).unwrap());
            format!("{name}={file}")
        });
        let report = answer(&["measure", "--map", map, "--policy", &files[1], "--policy", &files[0]]);
        let [best, even] = [0, 1].map(|place| &report["results"][place]);
        assert_eq!((&best["method"], &even["method"]), (&json!("best"), &json!("even")));
        assert_eq!(best["distance"]["mean"], 0.0);
        assert_eq!(best["distance"]["ci95"], Value::Null);
        assert_eq!(best["success_rate"]["greedy"], 1.0);
        assert_eq!(best["success_rate"]["sampled"], 1.0);
        assert!((even["distance"]["mean"].as_f64().unwrap() - 3.0 / 16.0).abs() < 1e-15);
        assert_eq!(report["paired"][0]["further"], "even");
    }
}

#[test]
fn names_with_other_numbers_of_policies_are_not_paired() {
    let folder = tempfile::tempdir().unwrap();
    let map = Map::load("4x4").unwrap();
    let file = write(&folder, "a.csv", policy_file::write(&map, &uniform_policy(&map)).unwrap());
    let [one, other] = ["one", "other"].map(|name| format!("{name}={file}"));
    let report = answer(&["measure", "--policy", &one, "--policy", &other, "--policy", &other]);
    assert_eq!(report["paired"], json!([]));
    // Without a name, it is a policy.
    assert_eq!(answer(&["measure", "--policy", &file])["results"][0]["method"], "policy");
}

#[test]
fn every_form_of_a_table_is_the_same_policy() {
    let folder = tempfile::tempdir().unwrap();
    let map = Map::load("4x4").unwrap();
    let row = [0.1, 0.2, 0.3, 0.4];
    let cells = map.non_terminal();
    let names = ["left", "down", "right", "up"];
    let numbers = |row: [f64; ACTIONS]| row.map(|number| number.to_string()).join(",");
    let csv = |header: &str, row: [f64; ACTIONS]| {
        // In any order.
        let rows = cells.iter().rev().map(|cell| format!("{cell},{}\n", numbers(row)));
        format!("{header}\n{}", rows.collect::<String>())
    };
    let json = |prefix: &str, row: [f64; ACTIONS]| {
        let line = |cell: &usize| {
            let mut line = json!({"cell": cell});
            names.iter().zip(row).for_each(|(name, number)| line[format!("{prefix}{name}")] = number.into());
            line.to_string() + "\n"
        };
        cells.iter().map(line).collect::<String>()
    };
    let forms = [
        ("plain.csv", csv("cell,left,down,right,up", row)),
        ("spaced.csv", csv("cell, left, down, right, up", row)),
        ("log.csv", csv("cell,log_left,log_down,log_right,log_up", row.map(f64::ln))),
        ("plain.jsonl", json("", row)),
        ("log.json", json("log_", row.map(f64::ln))),
        ("scores.jsonl", scores(&map, &vec![row; map.cells().len()])),
    ];
    for (name, text) in forms {
        let policy = policy_file::read(&map, Path::new(&write(&folder, name, text))).unwrap();
        for cell in &cells {
            for action in 0..ACTIONS {
                assert!((policy[*cell][action] - row[action]).abs() < 1e-12, "{name}: {:?}", policy[*cell]);
            }
        }
    }
    let never =
        csv("cell,log_left,log_down,log_right,log_up", [f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY]);
    let policy = policy_file::read(&map, Path::new(&write(&folder, "never.csv", never))).unwrap();
    assert_eq!(policy[0], [0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn rows_of_terminal_cells_are_ignored_whatever_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let map = Map::load("4x4").unwrap();
    let good = String::from_utf8(policy_file::write(&map, &uniform_policy(&map)).unwrap()).unwrap();
    let every = good.clone() + "5,0,0,0,0\n7,,,,\n11,NaN,2,-1,0\n12,0.25,0.25,0.25,0.25\n15,0,0,0,0\n15,0,0,0,0\n";
    let read = |name: &str, text: &str| policy_file::read(&map, Path::new(&write(&folder, name, text))).unwrap();
    assert_eq!(read("every.csv", &every), read("good.csv", &good));
}

#[test]
fn tables_rounded_to_a_few_decimals_are_measured_when_they_are_normalised() {
    let folder = tempfile::tempdir().unwrap();
    let map = Map::load("4x4").unwrap();
    let table = |header: &str, row: &str| {
        let rows = map.non_terminal().into_iter().map(|cell| format!("{cell},{row}\n"));
        format!("{header}\n{}", rows.collect::<String>())
    };
    let rounded = write(&folder, "rounded.csv", table("cell,left,down,right,up", "0.333,0.333,0.333,0"));
    fails(
        &["measure", "--policy", &rounded],
        &[
            "line 2: expected probabilities that sum to 1 within 0.00001, got 0.999",
            "--normalise divides each row by its sum",
        ],
    );
    let exact = write(&folder, "exact.csv", table("cell,left,down,right,up", &format!("{t},{t},{t},0", t = 1.0 / 3.0)));
    let counts = write(&folder, "counts.csv", table("cell,left,down,right,up", "7,7,7,0"));
    let logarithms = write(&folder, "log.csv", table("cell,log_left,log_down,log_right,log_up", "2.5,2.5,2.5,-inf"));
    let distance = |file: &str, extra: &[&str]| {
        answer(&[&["measure", "--policy", file], extra].concat())["results"][0]["distance"]["mean"].as_f64().unwrap()
    };
    let expected = distance(&exact, &[]);
    for file in [&rounded, &counts, &logarithms] {
        assert!((distance(file, &["--normalise"]) - expected).abs() < 1e-12, "{file}");
    }
    for (row, expected) in [
        ("0,0,0,0", "line 2: expected at least one action that is ever taken, got none"),
        ("1,-1,0.5,0.5", "line 2: down: expected a number from 0, got -1"),
        ("1,inf,0.5,0.5", "line 2: down: expected a number from 0, got inf"),
    ] {
        let file = write(&folder, "wrong.csv", table("cell,left,down,right,up", row));
        fails(&["measure", "--normalise", "--policy", &file], &[expected]);
    }
}

#[test]
fn a_measured_policy_has_a_name_that_no_row_of_the_table_has() {
    for name in ["optimal", "untrained"] {
        let expected = ["--policy", "a label of its own", &format!("\"{name}\"")];
        fails(&["measure", "--policy", &format!("{name}=a.csv")], &expected);
    }
}

#[test]
fn tables_that_are_no_policy_of_the_lake_are_refused_by_line_and_value() {
    let folder = tempfile::tempdir().unwrap();
    let map = Map::load("4x4").unwrap();
    let good = String::from_utf8(policy_file::write(&map, &uniform_policy(&map)).unwrap()).unwrap();
    // Line 3 is cell 1.
    let with = |row: &str| good.replace("\n1,0.25,0.25,0.25,0.25\n", &format!("\n{row}\n"));
    let cases = [
        ("missing", good.replace("\n1,0.25,0.25,0.25,0.25\n", "\n"), "cell 1: expected a row, got none"),
        ("sum", with("1,0.25,0.25,0.25,0.3"), "line 3: expected probabilities that sum to 1 within 0.00001, got 1.05"),
        ("negative", with("1,-0.2,0.7,0.25,0.25"), "line 3: left: expected a probability from 0 to 1, got -0.2"),
        ("nan", with("1,0.25,NaN,0.25,0.25"), "line 3: down: expected a probability from 0 to 1, got NaN"),
        ("word", with("1,0.25,much,0.25,0.25"), "line 3: field 2: invalid float literal"),
        ("twice", with("0,0.25,0.25,0.25,0.25"), "line 3: cell: expected each once, got 0 as in line 2"),
        ("beyond", with("16,0.25,0.25,0.25,0.25"), "line 3: cell: expected a cell below 16, got 16"),
        ("column", good.replace("up", "north"), "line 2: unknown field `north`"),
        ("short", with("1,0.25,0.25,0.25"), "found record with 4 fields, but the previous record has 5 fields"),
        ("empty", String::new(), "cell 0: expected a row, got none"),
        (
            "both",
            good.replace("up", "log_up"),
            "line 2: expected left, down, right and up, or each with log_ before it, got left, down, right, log_up",
        ),
        (
            "logarithm",
            good.replace("left,down,right,up", "log_left,log_down,log_right,log_up"),
            "line 2: log_left: expected the logarithm of one, got 0.25",
        ),
    ];
    for (name, text, expected) in cases {
        let file = write(&folder, &format!("{name}.csv"), text);
        fails(&["measure", "--policy", &file], &[&format!("policy {file}: "), expected]);
    }
    let file = write(&folder, "good.csv", &good);
    fails(
        &["measure", "--map", "5x5", "--policy", &file],
        &["map 5x5: no such map or file", "4x4, 8x8", "did you mean generated:5x5?"],
    );
    fails(&["measure", "--map", "8x8", "--policy", &file], &["cell 5", "got none"]);
    fails(&["measure"], &["--policy"]);
    fails(&["measure", "--policy", "nowhere.csv"], &["nowhere.csv", "No such file"]);
    fails(&["measure", "--policy", &write(&folder, "good.txt", &good)], &["ends in .csv, .jsonl or .json, got txt"]);
    for (name, line, expected) in [
        ("text.jsonl", "cell", "line 1: expected value"),
        ("unknown.jsonl", "{\"cell\": 0, \"north\": 1}", "line 1: north: unknown field `north`"),
        ("pair.jsonl", "{\"chosen\": {}, \"rejected\": {}}", "line 1: chosen: unknown field `chosen`"),
    ] {
        fails(&["measure", "--policy", &write(&folder, name, line)], &[expected]);
    }
}

#[test]
fn scores_that_are_not_of_this_lakes_evaluation_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let map = Map::load("4x4").unwrap();
    let good = scores(&map, &uniform_policy(&map));
    let first = good.lines().next().unwrap();
    let mut changed: Value = serde_json::from_str(first).unwrap();
    let with = |place: usize, field: &str, value: Value| {
        let mut line = changed.clone();
        line["completions"][place][field] = value;
        good.replacen(first, &line.to_string(), 1)
    };
    let cases = [
        (
            "short",
            good.lines().skip(1).collect::<Vec<_>>().join("\n"),
            "expected 11 lines of scores, one for each non-terminal cell, got 10",
        ),
        (
            "sum",
            with(2, "sum", json!(0.5)),
            "line 1: completions[2].sum: expected the logarithm of a probability, got 0.5",
        ),
        (
            "ids",
            with(3, "response_ids", json!([1])),
            "line 2: completions[3].response_ids: expected [1] as in the first line, got [10, 2]",
        ),
        ("type", with(0, "sum", Value::Null), "line 1: completions[0].sum: invalid type: null, expected f64"),
        (
            "three",
            {
                changed["completions"].as_array_mut().unwrap().pop();
                good.replacen(first, &changed.to_string(), 1)
            },
            "line 1: completions: expected 4, one for each action, got 3",
        ),
    ];
    for (name, text, expected) in cases {
        fails(&["measure", "--policy", &write(&folder, &format!("{name}.jsonl"), text)], &[expected]);
    }
}

#[test]
fn every_map_is_exported_and_what_scores_say_of_it_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    for (name, state) in
        [("4x4", "words"), ("4x4", "map"), ("8x8", "words"), ("8x8", "map"), ("generated:3x6,holes=0.2,seed=3", "map")]
    {
        let data = export(&folder, &["--map", name, "--format", "lm", "--state", state]);
        let setting = setting(name);
        let map = setting.environment().map();
        let key: Value = serde_json::from_slice(&std::fs::read(data.join("lake.json")).unwrap()).unwrap();
        assert_eq!(key["map"], json!(map.rows()));
        assert_eq!(key["evaluation"], json!(map.non_terminal()));
        // Every state is told apart from every other.
        let evaluation = lines(data.join("evaluation.jsonl"));
        let prompt = |line: &Value| line["prompt"][0]["content"].as_str().unwrap().to_owned();
        let mut prompts: Vec<_> = evaluation.iter().map(prompt).collect();
        for ((line, cell), prompt) in evaluation.iter().zip(map.non_terminal()).zip(&prompts) {
            let answers: Vec<_> =
                (0..ACTIONS).map(|action| line["completions"][action][0]["content"].clone()).collect();
            assert_eq!(json!(answers), key["actions"]);
            assert_eq!(line["rewards"], json!(setting.solution().action_value[cell]));
            let place = format!("You are at row {}, column {}.", cell / map.width() + 1, cell % map.width() + 1);
            let row = prompt.lines().nth(2 + cell / map.width()).unwrap_or_default();
            match state {
                "words" => assert!(prompt.contains(&place), "{prompt}"),
                _ => assert_eq!(row.chars().nth(cell % map.width()), Some('X'), "{prompt}"),
            }
        }
        // The demonstration, read back, is the word that the lake trains on.
        let demonstrations = lines(data.join("demonstrations.jsonl"));
        let mut cell = map.start();
        let mut word = String::new();
        for line in &demonstrations {
            let place = prompts.iter().position(|prompt| line["messages"][0]["content"] == **prompt).unwrap();
            assert_eq!(map.non_terminal()[place], cell);
            let action =
                Action::ALL.into_iter().find(|action| line["messages"][1]["content"] == action.word()).unwrap();
            cell = map.intended(cell, action);
            word.push(action.letter());
        }
        assert_eq!(key["trajectories"]["demonstration"], word);
        assert_eq!(word, lake::trajectory::resolve(map, "optimal").unwrap().word);
        prompts.sort();
        prompts.dedup();
        assert_eq!(prompts.len(), evaluation.len());
        let preferences = lines(data.join("preferences.jsonl"));
        assert_eq!(preferences.len(), key["preferences"].as_array().unwrap().len());

        let measured = |policy: &TransitionMatrix| {
            let file = write(&folder, "scores.jsonl", scores(map, policy));
            answer(&["measure", "--map", name, "--policy", &file])["results"][0]["distance"]["mean"].as_f64().unwrap()
        };
        assert_eq!(measured(setting.optimal()), 0.0);
        assert!((measured(&uniform_policy(map)) - 3.0 / 16.0).abs() < 1e-12);
    }
}

#[test]
fn preferences_say_what_the_trajectories_say_of_the_cells_that_they_visit() {
    let folder = tempfile::tempdir().unwrap();
    let key = |arguments: &[&str]| -> Value {
        serde_json::from_slice(&std::fs::read(export(&folder, arguments).join("lake.json")).unwrap()).unwrap()
    };
    let pairs = key(&[])["preferences"].clone();
    // DDRDRR visits six cells, with three other moves each; RD comes to one more, where three moves are better than its
    // own.
    assert_eq!(pairs.as_array().unwrap().len(), 21);
    let of = |cell: usize| pairs.as_array().unwrap().iter().filter(|pair| pair[0] == cell).cloned().collect::<Vec<_>>();
    assert_eq!(json!(of(0)), json!([[0, "down", "left"], [0, "down", "right"], [0, "down", "up"]]));
    assert_eq!(json!(of(1)), json!([[1, "left", "down"], [1, "right", "down"], [1, "up", "down"]]));
    assert!(of(2).is_empty());
    // In a cell where the demonstration makes two moves, both are better than the others.
    let pairs = key(&["--demonstration", "RLDDRDRR"])["preferences"].clone();
    let first: Vec<_> = pairs.as_array().unwrap().iter().filter(|pair| pair[0] == 0).cloned().collect();
    assert_eq!(json!(first), json!([[0, "down", "left"], [0, "down", "up"], [0, "right", "left"], [0, "right", "up"]]));
    assert_eq!(key(&["--rejected", "detour"])["trajectories"]["rejected"], "RRDDLDRR");
    fails(
        &["export", "never", "--map", "generated:100x100,holes=0.1"],
        &["map generated", "at most 4096 cells", "10000"],
    );
    fails(&["export", "never", "--demonstration", "LEFT"], &["trajectory LEFT"]);
    assert!(!Path::new("never").exists());
}

/// A policy of the 4x4 lake; some actions are never taken.
fn policies() -> impl Strategy<Value = TransitionMatrix> {
    let weight = prop_oneof![4 => 1e-6_f64..1.0, 1 => Just(0.0)];
    vec(proptest::array::uniform4(weight), 16).prop_map(|rows| {
        let row = |row: [f64; ACTIONS]| {
            let sum: f64 = row.iter().sum();
            if sum == 0.0 { [0.25; ACTIONS] } else { row.map(|weight| weight / sum) }
        };
        rows.into_iter().map(row).collect()
    })
}

proptest! {
    #[test]
    fn any_policy_is_read_as_it_was_written_and_fares_within_bounds(policy in policies()) {
        let (folder, setting) = (tempfile::tempdir().unwrap(), setting("4x4"));
        let map = setting.environment().map();
        let file = write(&folder, "policy.csv", policy_file::write(map, &policy).unwrap());
        let read = policy_file::read(map, Path::new(&file)).unwrap();
        let (own, other) = (setting.measure(policy.clone()), setting.measure(read.clone()));
        prop_assert!(map.non_terminal().into_iter().all(|cell| read[cell] == policy[cell]));
        prop_assert_eq!((own.distance, own.greedy, own.sampled), (other.distance, other.greedy, other.sampled));
        // A row is at most (1, -1, 0, 0) away.
        prop_assert!((0.0..=0.5).contains(&own.distance));
        prop_assert!((0.0..=1.0 + 1e-12).contains(&own.sampled.success_rate));

        let file = write(&folder, "scores.jsonl", scores(map, &policy));
        let scored = policy_file::read(map, Path::new(&file)).unwrap();
        prop_assert!((setting.measure(scored.clone()).distance - own.distance).abs() < 1e-12);
        for cell in map.non_terminal() {
            prop_assert!(policy[cell][greedy_action(&scored[cell]) as usize] > policy[cell].iter().copied().fold(0.0, f64::max) - 1e-12);
        }
    }
}
