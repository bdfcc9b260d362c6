//! Output on a terminal: errors with suggestions, and text that fits its width.

use tests::command::{fails, json, program, root, succeeds};

/// A recipe of two entries with these labels.
fn labelled(folder: &tempfile::TempDir, labels: &[(&str, &str)]) -> String {
    let entries = labels.iter().map(|(name, label)| format!("[[method]]\nname = \"{name}\"\nlabel = \"{label}\"\n"));
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, entries.collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_label_is_no_row_of_the_table_and_no_other_methods_name() {
    let folder = tempfile::tempdir().unwrap();
    for label in ["optimal", "untrained", "all", "optimizer"] {
        let recipe = labelled(&folder, &[("dpo", label)]);
        fails(&["--recipe", &recipe], &["method.label", "a label of its own", &format!("\"{label}\"")]);
    }
    for label in ["sft", "sft+dpo"] {
        let recipe = labelled(&folder, &[("dpo", label), ("ift", "mine")]);
        fails(&["--recipe", &recipe], &["method.label", "no other method's name for dpo", &format!("\"{label}\"")]);
    }
    for label in ["dpo", "sft-like", "optimal-2", "ours+theirs"] {
        let recipe = labelled(&folder, &[("dpo", label)]);
        assert_eq!(json(&["--recipe", &recipe, "--seeds", "1", "--steps", "1"])["results"][0]["method"], label);
    }
}

#[test]
fn a_lake_without_holes_says_so() {
    let flat = ["--map", "['SFF', 'FFG']", "--method", "dpo"];
    fails(&flat, &["trajectory hole: the lake has no holes; give a word"]);
    fails(&[&flat[..], &["--rejected", "drawn:falling"]].concat(), &["trajectory drawn:falling", "has no holes"]);
    succeeds(&[&flat[..], &["--rejected", "RDR", "--seeds", "1", "--steps", "1"]].concat());
}

#[test]
fn counts_out_of_range_are_named_as_they_were_given() {
    let top = i64::MAX as u64 - 1_000_000;
    for given in [top + 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        fails(
            &["--method", "dpo", "--seed", &given.to_string()],
            &[&format!("recipe.seed: expected 0 to {top}, got {given}")],
        );
    }
    let report = json(&["--method", "sft", "--seeds", "2", "--steps", "1", "--seed", &top.to_string()]);
    assert_eq!(report["recipe"]["seed"], top);
    for (option, given) in [("--seeds", "-3"), ("--steps", "-1"), ("--hidden", "-2"), ("--seed", "-1")] {
        let field = option.trim_start_matches('-');
        fails(&[option, given], &[option, &format!("recipe.{field}: expected "), &format!("got {given}")]);
    }
    fails(
        &["--method", "dpo", "--seeds", "99999999999999999999"],
        &["recipe.seeds: expected 1 to 1000000, got 99999999999999999999"],
    );
    fails(&["--method", "dpo", "--threads", "-2"], &["--threads", "-2 is not in 1..=1024"]);
}

#[test]
fn what_no_method_reads_is_no_reason_to_refuse() {
    let endless = ["--reward-schedule", "1,0,1", "--seeds", "1", "--steps", "2"];
    let report = json(&[&endless[..], &["--method", "ppo,grpo"]].concat());
    assert_eq!(report["trajectories"], serde_json::json!({}));
    for result in report["results"].as_array().unwrap() {
        assert!(result["distance_demonstrated_cells"]["mean"].is_f64());
    }
    succeeds(&[&endless[..], &["--method", "ppo", "--explain"]].concat());
    for readers in
        [&["--method", "ppo,sft"][..], &["--method", "sft+ppo"], &["--method", "ppo", "--start", "after:sft"]]
    {
        fails(&[&endless[..], readers].concat(), &["trajectory optimal", "give a word"]);
    }
    // A demonstration that can be walked is named as ever.
    let report = json(&["--method", "ppo", "--seeds", "1", "--steps", "2"]);
    assert_eq!(report["trajectories"]["demonstration"], "DDRDRR");
    // A lake without holes has nothing to reject, and methods that sample reject nothing.
    succeeds(&["--map", "['SFF', 'FFG']", "--method", "online_dpo", "--seeds", "1", "--steps", "2"]);
}

#[test]
fn messages_say_what_was_meant() {
    fails(
        &["--method", "dpo", "--map", "foo"],
        &["map foo: no such map or file; expected 4x4, 8x8, generated:", ", or a file"],
    );
    for (arguments, expected) in [
        (&["--method", "dpo", "--map", "4X4"][..], "did you mean 4x4?"),
        (&["--method", "dpo", "--map", "12x12"], "did you mean generated:12x12?"),
        (&["--slippery", "true"], "did you mean '--slippery=true'?"),
        (&["solve", "--slippery", "false"], "did you mean '--slippery=false'?"),
        (&["--parameterised-target", "true"], "did you mean '--parameterised-target=true'?"),
        (&["--method", "dpo", "ift"], "did you mean '--method dpo,ift'?"),
        (&["--method", "dpo,", "ift", "--seeds", "3"], "did you mean '--method dpo,ift'?"),
        (&["--reward-schedule", "1", "-1", "-0.01"], "did you mean '--reward-schedule 1,-1,-0.01'?"),
        (&["--method", "iftt"], "iftt: unknown method; allowed: sft, "),
        (&["--method", "iftt"], "did you mean ift?"),
        (&["--method", "DPO"], "did you mean dpo?"),
        (&["--method", "sft+orp"], "did you mean orpo?"),
        (&["--method", "dpo", "--start", "after:sftt"], "did you mean sft?"),
        (&["--method", "dpo", "--set", "bata=1"], "did you mean beta?"),
        (&["--method", "dpo", "--set", "dop.beta=1"], "did you mean dpo?"),
        (&["--method", "dpo", "--set", "optimizer.smothing=0.5"], "did you mean smoothing?"),
        (&["--method", "dpo", "--rejected", "detuor"], "did you mean detour?"),
        (&["--optimiser", "sgd"], "'--optimizer'"),
        (&["sovle"], "'solve'"),
    ] {
        fails(arguments, &[expected]);
    }
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, "stepz = 3\n").unwrap();
    fails(
        &["--recipe", recipe.to_str().unwrap()],
        &["recipe.toml: stepz: expected a field: one of map, ", "did you mean steps?"],
    );
    fails(&["--method", "perplexity"], &["perplexity: unknown method; allowed: sft"]);
}

#[test]
fn a_difference_of_nothing_has_no_minus() {
    // These differ by rounding alone.
    let page = succeeds(&["--method", "grpo,sapo,dpo,aot,aot_unpaired", "--seeds", "4", "--steps", "20"]);
    assert!(page.contains("+0.0000") && !page.contains("+-") && !page.contains("-0.0000"), "{page}");
}

/// The output for a terminal of this many columns.
fn shown(columns: usize, arguments: &[&str]) -> String {
    let output = program().args(arguments).env("COLUMNS", columns.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Words of a text that have a digit.
fn numbers(text: &str) -> std::collections::BTreeSet<String> {
    text.split_whitespace().filter(|word| word.contains(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}

#[test]
fn pages_fit_60_80_100_and_200_columns_and_no_number_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    let policies = policies.to_str().unwrap();
    succeeds(&["--method", "sft,ift", "--seeds", "2", "--steps", "3", "--policies", policies]);
    let policy = |method: &str, seed: usize| format!("{method}={policies}/{method}-{seed}.csv");
    let [sft, ift] = ["sft", "ift"].map(|method| [policy(method, 0), policy(method, 1)]);
    let measure = ["measure", "--policy", &sft[0], "--policy", &sft[1], "--policy", &ift[0], "--policy", &ift[1]];
    for arguments in [
        &["--recipe", "experiments/paper.toml", "--seeds", "4", "--steps", "20"][..],
        &["--method", "ift", "--seeds", "2", "--steps", "3"],
        &["--method", "all", "--seeds", "2", "--steps", "3", "--explain"],
        &["--recipe", "experiments/propagation.toml", "--map", "8x8", "--seeds", "2", "--steps", "3"],
        &["--method", "sft", "--map", "generated:30x80,seed=1", "--seeds", "1", "--steps", "1"],
        &["solve", "--map", "8x8", "--slippery"],
        &["solve"],
        &["maps"],
        &measure,
    ] {
        let whole = numbers(&shown(10_000, arguments));
        for columns in [60, 80, 100, 200] {
            let page = shown(columns, arguments);
            for line in page.lines() {
                assert!(line.chars().count() <= columns, "{arguments:?} in {columns} columns:\n{line}");
            }
            // What is left out, or said of all rows in a sentence, is said whole.
            for number in numbers(&page) {
                let said = number.trim_end_matches(['.', ',', ':', ';']);
                let is_known = whole.iter().any(|known| known.trim_end_matches(['.', ',', ':', ';']) == said);
                assert!(
                    is_known || said == columns.to_string(),
                    "{arguments:?} in {columns} columns: {number}\n{page}"
                );
            }
        }
    }
}

#[test]
fn as_many_lakes_are_in_a_row_as_fit() {
    for (columns, expected) in [(60, 4), (80, 5), (100, 7), (200, 7)] {
        let page = shown(columns, &["--recipe", "experiments/paper.toml", "--seeds", "2", "--steps", "3"]);
        let first = page.lines().find(|line| line.contains('┌')).unwrap();
        assert_eq!(first.matches('┌').count(), expected, "{page}");
        assert_eq!(page.matches('┌').count(), 7);
    }
}

#[test]
fn columns_that_say_the_same_in_every_row_are_said_once_where_room_is_short() {
    let recipe = ["--recipe", "experiments/paper.toml", "--seeds", "2", "--steps", "3"];
    let (narrow, wide) = (shown(80, &recipe), shown(200, &recipe));
    assert_eq!(narrow.matches("untrained").count(), 1);
    assert!(narrow.contains("In every row: untrained 0.") && !wide.contains("In every row"), "{narrow}");
    assert!(narrow.contains("The same as success greedy/sampled: return greedy/sampled."), "{narrow}");
    // Each method's distance stands once.
    let distances = narrow.lines().filter(|line| line.trim_start().starts_with("orpo ") && line.contains('±'));
    assert_eq!(distances.count(), 1, "{narrow}");
}

#[test]
fn two_runs_do_not_mix_their_files_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let held = std::fs::File::open(&out).unwrap();
    held.lock().unwrap();
    let path = out.to_str().unwrap();
    let brief = ["--method", "sft", "--seeds", "1", "--steps", "1"];
    for option in ["--out", "--policies"] {
        fails(&[&brief[..], &[option, path]].concat(), &[option, path, "another process is writing into this folder"]);
    }
    fails(&["export", path], &["another process is writing into this folder"]);
    drop(held);
    succeeds(&[&brief[..], &["--out", path, "--policies", path]].concat());
    assert!(out.join("sft-0.csv").exists() && out.join("result.json").exists());
}

#[test]
fn an_output_that_is_no_folder_is_refused_by_its_kind_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("device");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let path = link.to_str().unwrap();
    for arguments in
        [&["--method", "sft", "--out", path][..], &["--method", "sft", "--policies", path], &["export", path]]
    {
        fails(arguments, &[path, "expected a folder, got a character device"]);
    }
    let study = root().join("experiments/reproduction-4x4.toml");
    fails(&["study", study.to_str().unwrap(), "--out", path], &["expected a folder, got a character device"]);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_result_is_written_through_the_link_that_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (out, kept) = (folder.path().join("out"), folder.path().join("kept.json"));
    std::fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(&kept, out.join("result.json")).unwrap();
    std::os::unix::fs::symlink("/dev/null", out.join("curve.png")).unwrap();
    succeeds(&["--method", "sft", "--seeds", "1", "--steps", "1", "--out", out.to_str().unwrap()]);
    for name in ["result.json", "curve.png"] {
        assert!(std::fs::symlink_metadata(out.join(name)).unwrap().is_symlink(), "{name}");
    }
    assert!(std::fs::read_to_string(&kept).unwrap().contains("\"results\""));
}
