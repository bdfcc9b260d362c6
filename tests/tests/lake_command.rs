//! The program `lake` as a user runs it.

use std::process::Command;

use serde_json::Value;
use tests::command::{fails, json, program, recipes, root, succeeds};

/// A file in a temporary folder.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn map_file(folder: &tempfile::TempDir, rows: &[&str]) -> String {
    file(folder, "map.toml", &format!("rows = {rows:?}"))
}

#[test]
fn the_readmes_first_command_runs_as_it_stands() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut commands = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap().lines();
    let (run, test) = (commands.next().unwrap(), commands.next().unwrap());
    assert_eq!(test, "cargo test", "the continuous integration runs this one");
    let output = Command::new("sh").arg("-c").arg(run).current_dir(root()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).unwrap();
    for text in ["ift", "optimal", "★", "±", "success", "return", "cells visited"] {
        assert!(page.contains(text), "{page}\nlacks {text}");
    }
}

#[test]
fn the_page_of_the_paper_in_the_book_is_what_the_program_prints() {
    let chapter = std::fs::read_to_string(root().join("docs/src/lake.md")).unwrap();
    let page = succeeds(&["--recipe", "experiments/paper.toml"]);
    for line in page.lines().filter(|line| !line.trim().is_empty()) {
        assert!(chapter.contains(line.trim_end()), "docs/src/lake.md lacks the line\n{line}");
    }
}

#[test]
fn the_table_of_results_in_the_book_has_every_method() {
    let chapter = std::fs::read_to_string(root().join("docs/src/lake.md")).unwrap();
    let [hole, detour] = ["hole", "detour"].map(|rejected| json(&["--method", "all", "--rejected", rejected]));
    let results = |report: &Value| report["results"].as_array().unwrap().clone();
    let cell = |result: &Value| {
        let [mean, ci95] = ["mean", "ci95"].map(|field| result["distance"][field].as_f64().unwrap());
        format!("{mean:.4} ± {ci95:.4}")
    };
    for hole in results(&hole) {
        let method = hole["method"].as_str().unwrap();
        let detour = results(&detour).into_iter().find(|result| result["method"] == method).unwrap();
        let [hole, detour] = [cell(&hole), cell(&detour)];
        let detour = if detour == hole { "same".to_owned() } else { detour };
        let row = format!("| {method} | {hole} | {detour} |");
        assert!(chapter.lines().any(|line| line == row), "docs/src/lake.md lacks the row\n{row}");
    }
}

#[test]
fn the_recorded_results_behind_the_figures_of_the_docs_are_those_of_this_program() {
    for recipe in ["paper", "figure3"] {
        let recorded = std::fs::read_to_string(root().join(format!("plots/{recipe}/result.json"))).unwrap();
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        let report = json(&["--recipe", &format!("experiments/{recipe}.toml")]);
        assert_eq!(report["recipe"], recorded["recipe"]);
        for (ours, theirs) in report["results"].as_array().unwrap().iter().zip(recorded["results"].as_array().unwrap())
        {
            // Another machine's libm may differ in the last bit, which training amplifies.
            let [ours, theirs] = [ours, theirs].map(|r| r["distance"]["mean"].as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-9, "{recipe}: {ours}, recorded {theirs}");
        }
    }
}

#[test]
fn one_design_has_the_papers_order_with_every_link_significant() {
    let recorded = std::fs::read_to_string(root().join("plots/figure3/result.json")).unwrap();
    let recorded: Value = serde_json::from_str(&recorded).unwrap();
    let order: Vec<_> =
        recorded["results"].as_array().unwrap().iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(order, ["dpo", "ift", "orpo", "sft"]);
    for link in order.windows(2) {
        let is_link = |paired: &&Value| paired["closer"] == *link[0] && paired["further"] == *link[1];
        let paired = recorded["paired"].as_array().unwrap().iter().find(is_link).unwrap();
        let [difference, ci95] = ["difference", "ci95"].map(|field| paired[field].as_f64().unwrap());
        assert!(difference > ci95, "{link:?}: {difference} ± {ci95}");
    }
}

#[test]
fn all_methods_come_in_one_table_best_first() {
    let report = json(&["--method", "all", "--seeds", "8"]);
    let distances: Vec<_> =
        report["results"].as_array().unwrap().iter().map(|r| r["distance"]["mean"].as_f64().unwrap()).collect();
    assert_eq!(distances.len(), objective::METHODS.len());
    assert!(distances.is_sorted(), "{distances:?}");
}

#[test]
fn json_has_every_documented_field() {
    let report = json(&["--method", "dpo,ift", "--seeds", "4", "--steps", "30"]);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["recipe"]["seed"], 0);
    assert_eq!(report["trajectories"]["rejected"], "RD");
    for result in report["results"].as_array().unwrap() {
        for field in
            ["distance", "initial_distance", "distance_all_cells", "distance_demonstrated_cells", "cells_visited"]
        {
            assert!(result[field]["mean"].is_f64() && result[field]["ci95"].is_f64(), "{field}");
            assert_eq!(result[field]["per_seed"].as_array().unwrap().len(), 4, "{field}");
        }
        for field in ["success_rate", "return"] {
            assert!(result[field]["greedy"].is_f64() && result[field]["sampled"].is_f64(), "{field}");
        }
        assert_eq!(result["curve"]["steps"], serde_json::json!([0, 1, 2, 5, 10, 20, 30]));
        assert_eq!(result["curve"]["mean"][6], result["distance"]["mean"]);
        assert_eq!(result["curve"]["mean"][0], result["initial_distance"]["mean"]);
        assert_eq!(result["transition_matrix"].as_array().unwrap().len(), 16);
        assert_eq!(result["snapshots"].as_array().unwrap().len(), 7);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let run = |threads| succeeds(&["--seeds", "16", "--steps", "60", "--json", "--threads", threads]);
    let one = run("1");
    assert_eq!(one, run("2"));
    assert_eq!(one, run("3"));
    let other = succeeds(&["--seeds", "16", "--steps", "60", "--json", "--seed", "1"]);
    assert_ne!(one, other);
}

#[test]
fn a_run_does_not_depend_on_the_methods_or_seeds_beside_it() {
    let per_seed = |arguments: &[&str]| {
        let report = json(arguments);
        let results = report["results"].as_array().unwrap();
        results.iter().find(|r| r["method"] == "ift").unwrap()["distance"]["per_seed"].clone()
    };
    let alone = per_seed(&["--method", "ift", "--seeds", "6", "--steps", "50"]);
    assert_eq!(alone, per_seed(&["--seeds", "6", "--steps", "50"]));
    let later = per_seed(&["--method", "ift", "--seeds", "3", "--seed", "3", "--steps", "50"]);
    assert_eq!(alone.as_array().unwrap()[3..], later.as_array().unwrap()[..]);
}

#[test]
fn a_written_recipe_gives_the_same_result_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let arguments = [
        "--method",
        "dpo,ift",
        "--set",
        "ift.propagation=none",
        "--seeds",
        "5",
        "--steps",
        "40",
        "--optimizer",
        "adamw",
    ];
    succeeds(&[&arguments[..], &["--out", out.to_str().unwrap()]].concat());
    let recipe = out.join("recipe.toml");
    let again = succeeds(&["--recipe", recipe.to_str().unwrap(), "--json"]);
    assert_eq!(again, std::fs::read_to_string(out.join("result.json")).unwrap());
    assert_eq!(again, succeeds(&[&arguments[..], &["--json"]].concat()));
}

#[test]
fn out_holds_the_result_and_every_figure_twice_and_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let out = folder.path().join(name);
        succeeds(&["--method", "sft,ift", "--seeds", "3", "--steps", "20", "--out", out.to_str().unwrap()]);
        let mut files: Vec<_> = std::fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let files = write("one");
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    let figures = ["curve", "distance", "policy-ift", "policy-sft"];
    let mut expected: Vec<_> =
        figures.iter().flat_map(|figure| [format!("{figure}.png"), format!("{figure}.svg")]).collect();
    expected.extend(["recipe.toml", "report.html", "result.json"].map(str::to_owned));
    expected.sort();
    assert_eq!(names, expected);
    for (name, bytes) in &files {
        assert_eq!(bytes.starts_with(b"\x89PNG"), name.ends_with(".png"), "{name}");
        assert_eq!(bytes.starts_with(b"<svg"), name.ends_with(".svg"), "{name}");
    }
    assert_eq!(files, write("two"));
}

#[test]
fn a_recipe_may_list_a_method_several_times_under_labels() {
    let recipe = ["--recipe", "experiments/propagation.toml", "--seeds", "2", "--steps", "5"];
    let report = json(&recipe);
    let methods: Vec<_> = report["results"].as_array().unwrap().iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(methods.len(), 11);
    assert!(methods.contains(&"freeze-all") && methods.contains(&"equation21"));
    let report = json(&[&recipe[..], &["--method", "released", "--set", "gamma=0.5"]].concat());
    assert_eq!(report["results"][0]["parameters"]["gamma"], 0.5);
    fails(&[&recipe[..], &["--set", "ift.gamma=0.5"]].concat(), &["ift.gamma", "not used"]);
}

#[test]
fn lambda_may_rise_in_the_warm_up_and_be_noisy_and_each_has_its_effect() {
    let per_seed = |extra: &[&str]| {
        let base = ["--method", "ift", "--seeds", "3", "--steps", "40", "--warmup-ratio", "0.5"];
        json(&[&base[..], extra].concat())["results"][0]["distance"]["per_seed"].clone()
    };
    let [plain, rising, noisy] = [&[][..], &["--set", "lambda_min=0"], &["--set", "lambda_noise=0.5"]].map(per_seed);
    assert!(plain != rising && plain != noisy && rising != noisy);
    assert_eq!(noisy, per_seed(&["--set", "lambda_noise=0.5", "--threads", "1"]));
    fails(&["--method", "ift", "--set", "lambda_min=0"], &["ift.lambda_min", "warmup_ratio = 0", "got 0"]);
}

#[test]
fn every_recipe_in_experiments_runs() {
    for path in recipes() {
        succeeds(&["--recipe", path.to_str().unwrap(), "--seeds", "2", "--steps", "3"]);
    }
}

#[test]
fn options_reach_the_run() {
    let recipe = &json(&[
        "--method",
        "ift",
        "--seeds",
        "2",
        "--steps",
        "3",
        "--map",
        "8x8",
        "--slippery",
        "--gamma",
        "0.9",
        "--encoding",
        "row_column",
        "--hidden",
        "8",
        "--optimizer",
        "sgd",
        "--set",
        "optimizer.momentum=0.5",
        "--set",
        "lambda=0.4",
        "--learning-rate",
        "0.1",
        "--schedule",
        "cosine",
        "--warmup-ratio",
        "0.5",
        "--clip-norm",
        "2",
        "--target",
        "soft",
        "--demonstration",
        "hole",
        "--rejected",
        "RRRR",
        "--start",
        "noisy:0.5",
        "--parameterised-target",
        "--seed",
        "9",
        "--success-rate",
        "0.75",
        "--reward-schedule",
        "1,-1,-0.01",
    ])["recipe"];
    let expected = serde_json::json!({
        "map": "8x8", "slippery": true, "success_rate": 0.75, "reward_schedule": [1.0, -1.0, -0.01],
        "gamma": 0.9, "target": "soft", "demonstration": "hole", "rejected": "RRRR",
        "start": "noisy:0.5", "parameterised_target": true, "encoding": "row_column", "hidden": 8, "learning_rate": 0.1, "schedule": "cosine", "warmup_ratio": 0.5,
        "clip_norm": 2.0, "steps": 3, "seeds": 2, "seed": 9,
        "optimizer": {"name": "sgd", "momentum": 0.5, "nesterov": false, "weight_decay": 0.0},
        "method": [{"name": "ift", "lambda": 0.4, "lambda_min": 0.4, "lambda_noise": 0.0, "gamma": 0.95, "propagation": "released", "item": "loss",
            "side": "left", "norm": "L1", "freeze_embeddings": "none"}],
    });
    assert_eq!(recipe, &expected);
}

#[test]
fn one_seed_has_no_interval() {
    let report = json(&["--method", "sft", "--seeds", "1", "--steps", "3"]);
    assert_eq!(report["results"][0]["distance"]["ci95"], Value::Null);
    assert!(!succeeds(&["--method", "sft", "--seeds", "1", "--steps", "3"]).contains('±'));
}

#[test]
fn a_map_without_named_trajectories_has_an_optimal_one_and_one_into_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let map = map_file(&folder, &["SFFF", "FHFH", "FFFH", "HFFG"]);
    let report = json(&["--method", "dpo", "--map", &map, "--seeds", "1", "--steps", "1"]);
    assert_eq!(report["trajectories"], serde_json::json!({"demonstration": "DDRDRR", "rejected": "RD"}));
    // A lake without holes can still be learned from demonstrations alone.
    let map = map_file(&folder, &["SFG"]);
    succeeds(&["--method", "sft,ift", "--map", &map, "--seeds", "1", "--steps", "1"]);
    fails(&["--method", "dpo", "--map", &map], &["trajectory hole", "give a word"]);
}

#[test]
fn solve_prints_the_solution() {
    let solution = json(&["solve", "--slippery", "--target", "ties", "--solver", "value_iteration"]);
    for (map, fastest) in [("4x4", "policy_iteration"), ("generated:20x20", "accelerated")] {
        assert_eq!(json(&["solve", "--map", map])["solver"], fastest, "{map}");
    }
    assert_eq!(solution["map"], serde_json::json!(["SFFF", "FHFH", "FFFH", "HFFG"]));
    assert_eq!(solution["slippery"], true);
    assert_eq!(solution["gamma"], 0.99);
    assert_eq!(solution["value"][5], 0.0);
    assert_eq!(solution["value"][15], 0.0);
    for field in ["action_value", "transition_matrix"] {
        let rows = solution[field].as_array().unwrap();
        assert!(rows.len() == 16 && rows.iter().all(|row| row.as_array().unwrap().len() == 4), "{field}");
    }
    assert!(solution["residual"].as_f64().unwrap() < 1e-13);
    assert!(solution["sweeps"].as_u64().unwrap() > 100);
    for solver in ["accelerated", "gauss_seidel", "policy_iteration", "modified_policy_iteration", "prioritised"] {
        let other: Value =
            serde_json::from_str(&succeeds(&["solve", "--slippery", "--target", "ties", "--solver", solver, "--json"]))
                .unwrap();
        assert_eq!(other["solver"], solver);
        for (ours, theirs) in other["value"].as_array().unwrap().iter().zip(solution["value"].as_array().unwrap()) {
            assert!((ours.as_f64().unwrap() - theirs.as_f64().unwrap()).abs() < 1e-11, "{solver}");
        }
    }
    let large = ["solve", "--map", "generated:200x300,holes=0.1", "--slippery", "--accuracy", "1e-6"];
    // Long lines are wrapped.
    let page = succeeds(&large).split_whitespace().collect::<Vec<_>>().join(" ");
    for text in ["T*, V*, Q* too large to draw", "200 x 300 cells", "holes", "V*(S) =", "so V* is known to"] {
        assert!(page.contains(text) && page.len() < 500, "{page}\nlacks {text}");
    }
    fails(&["solve", "--accuracy", "0"], &["--accuracy", "0 < accuracy <= 1", "got 0"]);
    fails(&["solve", "--solver", "newton"], &["--solver", "value_iteration, accelerated", "newton"]);
    let drawn = succeeds(&["solve", "--map", "8x8"]);
    assert!(drawn.contains('★') && drawn.contains("V*") && drawn.contains("Q*"), "{drawn}");
}

#[test]
fn a_lake_may_be_generated_or_come_as_letters_and_names_its_rewards() {
    let name = "generated:5x6,holes=0.3,seed=2";
    let train = ["--method", "dpo,ppo", "--seeds", "2", "--steps", "4"];
    let report = json(&[&train[..], &["--map", name, "--reward-schedule", "1,-1,-0.01"]].concat());
    assert_eq!(report["recipe"]["map"], name);
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<_> = report["map"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    let letters = file(&folder, "lake.txt", &rows.join("\n"));
    let again = json(&[&train[..], &["--map", &letters, "--reward-schedule", "1,-1,-0.01"]].concat());
    assert_eq!(report["results"], again["results"]);
    let page = succeeds(&["--method", "sft", "--seeds", "1", "--steps", "1", "--reward-schedule", "2,-1,0"]);
    assert!(page.contains("not slippery, rewards 2 goal, -1 hole, 0 frozen, discount 0.99"), "{page}");
    let never_ending = ["--method", "sft", "--reward-schedule", "1,0,1"];
    fails(&never_ending, &["trajectory optimal", "1 on ice at discount 0.99", "give a word"]);
    succeeds(&[&never_ending[..], &["--demonstration", "DDRDRR", "--seeds", "1", "--steps", "1"]].concat());
}

#[test]
fn maps_lists_each_map_with_its_trajectories() {
    let maps = succeeds(&["maps"]);
    for text in ["4x4", "8x8", "generated:HEIGHTxWIDTH", "DDRDRR", "RRDDLDRR", "DDDRRRRDDRDDRR"] {
        assert!(maps.contains(text), "{maps}");
    }
}

#[test]
fn help_is_a_manual_of_every_method_and_parameter() {
    // Long lines are wrapped.
    let help = succeeds(&["--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    for method in objective::METHODS {
        assert!(help.contains(method.name) && help.contains(method.source), "{}", method.name);
        assert!((method.parameters)().iter().all(|parameter| help.contains(parameter.purpose)), "{}", method.name);
    }
}

#[test]
fn wrong_methods_and_parameters_are_errors_that_name_what_is_allowed() {
    fails(&["--method", "spo"], &["spo: unknown method", "sft, dpo, orpo"]);
    fails(&["--method", "dpo", "--set", "gamma=0.5"], &["dpo.gamma: unknown parameter", "beta, label_smoothing"]);
    fails(&["--method", "dpo", "--set", "beta=-1"], &["dpo.beta", "1e-9 <= beta <= 1e6", "got -1"]);
    fails(&["--method", "dpo", "--set", "beta=much"], &["dpo.beta", "a number", "\"much\""]);
    fails(&["--method", "dpo", "--set", "beta"], &["--set", "method.parameter=value", "\"beta\""]);
    fails(&["--method", "dpo,orpo", "--set", "beta=1"], &["--set", "2 methods are chosen"]);
    fails(&["--method", "dpo", "--set", "ift.gamma=1"], &["--set", "dpo", "ift.gamma"]);
    fails(&["--method", "ift", "--set", "propagation=none", "--set", "gamma=0.9"], &["ift.gamma", "not used"]);
    fails(&["--method", "ift,ift"], &["label", "ift"]);
    fails(&["--set", "optimizer.beta1=0.5"], &["optimizer.beta1: unknown parameter", "smoothing"]);
    fails(&["--optimizer", "sgd", "--set", "optimizer.nesterov=true"], &["optimizer.nesterov", "momentum = 0"]);
    fails(&["--optimizer", "lion"], &["lion", "rmsprop, adamw, sgd"]);
}

#[test]
fn numbers_out_of_range_are_errors_that_name_field_range_and_value() {
    fails(&["--learning-rate", "-1"], &["recipe.learning_rate", "0 < learning_rate", "got -1"]);
    fails(&["--learning-rate", "nan"], &["recipe.learning_rate", "got NaN"]);
    fails(&["--gamma", "1"], &["recipe.gamma", "gamma < 1", "got 1"]);
    fails(&["--slippery", "--success-rate", "1.5"], &["recipe.success_rate", "<= 1", "got 1.5"]);
    fails(&["--success-rate", "0.5"], &["recipe.success_rate", "slippery = false", "got 0.5"]);
    fails(&["--reward-schedule", "1,0"], &["reward_schedule", "length 2", "3"]);
    fails(&["--reward-schedule", "1,-1e7,0"], &["recipe.reward_schedule", "-1e6 <= reward_schedule", "got -1e7"]);
    fails(&["--reward-schedule=-1,inf,0"], &["recipe.reward_schedule", "got inf"]);
    fails(&["--reward-schedule", "1,0,a"], &["--reward-schedule", "'a'"]);
    fails(&["--clip-norm", "0"], &["recipe.clip_norm", "0 < clip_norm", "got 0"]);
    fails(&["--warmup-ratio", "2"], &["recipe.warmup_ratio", "<= 1", "got 2"]);
    fails(&["--hidden", "0"], &["recipe.hidden", "1 to 65536", "got 0"]);
    fails(&["--steps", "0"], &["recipe.steps", "got 0"]);
    fails(&["--seeds", "0"], &["recipe.seeds", "got 0"]);
    fails(&["--seed", "18446744073709551615"], &["recipe.seed", "0 to"]);
    fails(&["--threads", "0"], &["--threads", "0"]);
    fails(&["--target", "best"], &["--target", "greedy, ties, soft"]);
}

#[test]
fn a_run_that_diverges_is_an_error_that_names_method_and_seed() {
    let arguments =
        ["--method", "sft", "--optimizer", "sgd", "--learning-rate", "1e6", "--set", "optimizer.weight_decay=1e6"];
    fails(&arguments, &["sft, seed 0"]);
}

#[test]
fn maps_that_are_none_are_errors_that_name_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let broken = |rows: &[&str], expected: &[&str]| fails(&["--map", &map_file(&folder, rows)], expected);
    broken(&["FFFG"], &["map.toml", "exactly one S", "got 0"]);
    broken(&["SFSG"], &["exactly one S", "got 2"]);
    broken(&["SFFF"], &["at least one G"]);
    broken(&["SHG"], &["a way from S to a G"]);
    broken(&["SFF", "FG"], &["rows[1]", "3 letters", "got 2"]);
    broken(&["SFX", "FFG"], &["rows[0], letter 2", "S, F, H, G", "'X'"]);
    broken(&[], &["exactly one S"]);
    fails(&["--map", "5x5"], &["map", "4x4, 8x8, generated:HEIGHTxWIDTH", "or a file", "5x5"]);
    fails(&["--map", "generated:8x8,holes=2"], &["map generated.holes", "0 <= holes <= 1", "\"2\""]);
    fails(&["--map", "['SFF', 'FXG']"], &["rows[1], letter 1", "'X'"]);
    fails(&["--map", "envs"], &["envs"]);
    let garbage = file(&folder, "garbage.toml", "rows = [");
    fails(&["--map", &garbage], &["garbage.toml"]);
    let unknown = file(&folder, "unknown.toml", "rows = [\"SG\"]\ncolour = 3");
    fails(&["--map", &unknown], &["colour"]);
    let walled = file(&folder, "walled.toml", "rows = [\"SG\"]\n[trajectories]\noptimal = \"U\"");
    fails(&["--map", &walled], &["step 1, U: moves into a wall"]);
}

#[test]
fn trajectories_that_cannot_be_walked_are_errors_that_name_the_step() {
    fails(&["--demonstration", "DDL"], &["DDL", "step 3, L: moves into a wall"]);
    fails(&["--rejected", "RDD"], &["RDD", "step 3, D", "a hole"]);
    fails(&["--demonstration", "DDRDRRL"], &["step 7, L", "the goal"]);
    fails(&["--demonstration", "shortcut"], &["shortcut", "optimal, hole, detour"]);
    fails(&["--demonstration", ""], &["at least one move"]);
}

#[test]
fn unreadable_recipes_are_errors_that_name_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let broken = |text: &str, expected: &[&str]| fails(&["--recipe", &file(&folder, "recipe.toml", text)], expected);
    broken("steps = ", &["recipe.toml"]);
    broken("stepz = 3", &["recipe.toml", "stepz"]);
    broken("steps = \"many\"", &["recipe.toml", "steps", "many"]);
    broken("steps = -3", &["recipe.toml", "steps", "-3"]);
    broken("[[method]]\nname = \"spo\"", &["spo: unknown method"]);
    broken("[[method]]\nname = \"dpo\"\nbeta = 0", &["dpo.beta", "got 0"]);
    broken("[[method]]\nname = \"dpo\"\nlabel = \"../dpo\"", &["method.label", "../dpo"]);
    broken("[[method]]\nname = \"dpo\"\n[[method]]\nname = \"dpo\"", &["method.label", "\"dpo\" twice"]);
    broken("[optimizer]\nname = \"lion\"", &["lion", "rmsprop"]);
    fails(&["--recipe", "missing.toml"], &["missing.toml"]);
}

#[test]
fn an_unwritable_folder_is_an_error_before_any_work_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = file(&folder, "occupied", "");
    fails(&["--seeds", "1000000", "--out", &occupied], &["--out", "occupied"]);
    fails(&["--seeds", "1000000", "--out", "/proc/lake"], &["--out", "/proc/lake"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = program()
        .args(["--seeds", "400", "--steps", "1", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn methods_joined_by_a_plus_train_one_behind_the_other_and_the_reference_is_what_the_first_left() {
    let setting = ["--seeds", "3", "--steps", "40"];
    let both = json(&[&["--method", "sft,sft+dpo"], &setting[..]].concat());
    let result = |name: &str| {
        both["results"].as_array().unwrap().iter().find(|result| result["method"] == name).unwrap().clone()
    };
    assert_eq!(result("sft")["distance"]["values"], result("sft+dpo")["initial_distance"]["values"]);
    assert_eq!(result("sft+dpo")["after"][0]["name"], "sft");

    let first = json(&["--method", "sft+dpo", "--seeds", "2", "--steps", "1"]);
    let loss = first["results"][0]["last_loss"]["mean"].as_f64().unwrap();
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-15, "{loss}");

    // What is recorded runs again to the same bytes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let out = [&["--method", "ift+orpo", "--json", "--out", path], &setting[..]].concat();
    let again = folder.path().join("recipe.toml");
    let text = succeeds(&out);
    assert_eq!(succeeds(&["--recipe", again.to_str().unwrap(), "--json"]), text);
}

#[test]
fn a_sequence_of_methods_names_the_unknown_one() {
    fails(&["--method", "sft+spo"], &["spo: unknown method; allowed: sft"]);
    fails(&["--method", "spo+sft"], &["spo: unknown method"]);
    fails(&["--method", "sft+"], &["unknown method"]);
}
