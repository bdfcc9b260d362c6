//! Studies as a user types them: the same bytes in whatever pieces, whatever ends a run, and errors that say what to
//! do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lake::study::Study;
use lake::study::reading::DISTANCES;
use lake::study::shard::merge;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{fails, json, program, root, succeeds};

const SMALL: &str = r#"
designs = 30
seed = 3
stops = [5, 20, 40]
order = ["ift", "orpo", "sft"]

[recipe]
steps = 40
seeds = 3
hidden = 8

[[recipe.method]]
name = "sft"

[[recipe.method]]
name = "orpo"

[[recipe.method]]
name = "ift"

[factor]
slippery = [false, true]
rejected = ["hole", "drawn:any,seed={draw}"]
"orpo.beta" = [0.25, 1.0]

[factor.start]
random = { start = "random" }
"after sft" = { start = "after:sft" }

[factor.coefficients]
paper = {}
none = { set = ["ift.propagation=none"] }

[[question]]
claim = "IFT ends closer than SFT"
order = ["ift", "sft"]
where = { start = "random" }
by = "stop"
"#;

/// A folder with a study's file.
fn folder(study: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("study.toml");
    std::fs::write(&path, study).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

fn within(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|other| other == extension));
    files.sort();
    files
}

fn only(folder: &str, extension: &str) -> PathBuf {
    let files = files(folder, extension);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_study_is_the_same_in_one_piece_and_in_shards_on_any_number_of_threads() {
    let (home, study) = folder(SMALL);
    let (whole, parts) = (within(&home, "whole"), within(&home, "parts"));
    succeeds(&["study", &study, "--out", &whole, "--threads", "1"]);
    let again = within(&home, "again");
    succeeds(&["study", &study, "--out", &again, "--threads", "3"]);
    let [one, other] = [&whole, &again].map(|folder| only(folder, "parquet"));
    assert_eq!(one.file_name(), other.file_name());
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());

    for shard in ["2/3", "1/3", "3/3"] {
        let written = succeeds(&["study", &study, "--out", &parts, "--shard", shard]);
        assert!(written.contains(&format!("shard-{}-of-3-", &shard[..1])), "{written}");
    }
    assert!(files(&parts, "journal").is_empty());
    succeeds(&["study", "--merge", &parts]);
    for name in ["study.json", "study.md", "pairs.svg", "effects.svg", "order.svg"] {
        let [one, other] = [&whole, &parts].map(|folder| std::fs::read(Path::new(folder).join(name)).unwrap());
        assert_eq!(one, other, "{name}");
    }
    // Run again, nothing is trained and nothing changes.
    let before = std::fs::metadata(&one).unwrap().modified().unwrap();
    succeeds(&["study", &study, "--out", &whole]);
    assert_eq!(std::fs::metadata(&one).unwrap().modified().unwrap(), before);
}

#[test]
fn kill_9_at_200_random_moments_loses_nothing_and_ends_in_the_same_bytes() {
    let (home, study) = folder(&SMALL.replace("designs = 30", "designs = 240"));
    let whole = within(&home, "whole");
    program();
    let begun = Instant::now();
    succeeds(&["study", &study, "--out", &whole, "--shard", "1/2"]);
    // Kills fall into the start as well as into what follows it, on a machine of whatever speed; other tests slow this
    // run down.
    let longest = (begun.elapsed() / 2).max(Duration::from_millis(50)).as_micros() as u64;
    let expected = only(&whole, "parquet");

    let mut rng = ChaCha8Rng::seed_from_u64(200);
    let (mut kills, mut resumed, mut round) = (0, 0, 0);
    let mut known = Vec::new();
    while kills < 200 {
        let out = within(&home, &format!("killed-{round}"));
        let mut command = program();
        command.args(["study", &study, "--out", &out, "--shard", "1/2"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(rng.random_range(0..longest)));
        let finished = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (shards, journals) = match Path::new(&out).exists() {
            true => (files(&out, "parquet"), files(&out, "journal")),
            false => (Vec::new(), Vec::new()),
        };
        // A file that is there is whole, whenever the process ended.
        if let Some(shard) = shards.first() {
            assert_eq!(shard.file_name(), expected.file_name());
            assert_eq!(std::fs::read(shard).unwrap(), std::fs::read(&expected).unwrap());
        }
        if let Some(status) = finished {
            assert!(status.success() && shards.len() == 1 && journals.is_empty());
            (round, known) = (round + 1, Vec::new());
            continue;
        }
        kills += 1;
        // What was finished stays so.
        if let Some(journal) = journals.first().filter(|_| shards.is_empty()) {
            let text = std::fs::read(journal).unwrap();
            assert!(text.starts_with(&known), "a finished design was lost");
            resumed += usize::from(known.len() > SMALL.len());
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            known = text[..end].to_vec();
        }
    }
    let out = within(&home, &format!("killed-{round}"));
    succeeds(&["study", &study, "--out", &out, "--shard", "1/2"]);
    assert_eq!(std::fs::read(only(&out, "parquet")).unwrap(), std::fs::read(&expected).unwrap());
    assert!(resumed > 20, "{resumed} of {kills} runs went on behind finished designs");
}

#[test]
fn a_designs_recipe_gives_the_distances_that_the_study_recorded() {
    let (home, study) = folder(SMALL);
    let out = within(&home, "out");
    succeeds(&["study", &study, "--out", &out]);
    let results = merge(Path::new(&out), None).unwrap();
    assert_eq!(results.methods, ["sft", "orpo", "ift"]);
    assert_eq!(results.designs.len(), 30);
    let seeds: BTreeSet<_> = results.designs.iter().map(|design| design.seed).collect();
    assert_eq!(seeds.len(), 30, "each design has seeds of its own");
    for number in [0, 7, 29] {
        let recipe = within(&home, "recipe.toml");
        std::fs::write(&recipe, succeeds(&["study", &study, "--design", &number.to_string()])).unwrap();
        let report = json(&["--recipe", &recipe]);
        let design = &results.designs[number];
        assert_eq!(report["trajectories"]["rejected"].as_str().unwrap(), design.rejected);
        for result in report["results"].as_array().unwrap() {
            let method = results.methods.iter().position(|label| result["method"] == **label).unwrap();
            let per_seed = result["distance"]["per_seed"].as_array().unwrap();
            for (ours, run) in per_seed.iter().zip(&design.runs[method]) {
                let readings = run.as_ref().unwrap();
                // Untrained, after 5, 20 and 40 updates, and at the best.
                assert_eq!(readings.iter().map(|r| r.step).collect::<Vec<_>>()[..4], [0, 5, 20, 40]);
                assert_eq!(ours.as_f64().unwrap() as f32, readings[3].distances[0]);
                let best = readings[4].mean_return;
                assert!(readings.iter().all(|reading| reading.mean_return <= best));
            }
            let all = result["distance_all_cells"]["per_seed"].as_array().unwrap();
            for (ours, run) in all.iter().zip(&design.runs[method]) {
                assert_eq!(ours.as_f64().unwrap() as f32, run.as_ref().unwrap()[3].distances[1]);
            }
        }
    }
    assert_eq!(DISTANCES.len(), results.designs[0].runs[0][0].as_ref().unwrap()[0].distances.len());
}

#[test]
fn a_start_after_sft_is_the_sequence_that_its_name_says() {
    let distances = |arguments: &[&str]| {
        let report: Value =
            serde_json::from_str(&succeeds(&[arguments, &["--seeds", "4", "--json"]].concat())).unwrap();
        report["results"][0]["curve"].clone()
    };
    assert_eq!(distances(&["--method", "dpo", "--start", "after:sft"]), distances(&["--method", "sft+dpo"]));
}

#[test]
fn claims_may_change_without_training_and_the_space_may_not() {
    let (home, study) = folder(SMALL);
    let out = within(&home, "out");
    succeeds(&["study", &study, "--out", &out]);
    let (_other, claims) = folder(&SMALL.replace("order = [\"ift\", \"orpo\", \"sft\"]", "order = [\"sft\", \"ift\"]"));
    let report = json(&["study", &claims, "--merge", &out]);
    assert_eq!(report["order"]["order"], serde_json::json!(["sft", "ift"]));
    assert_eq!(report["questions"][0]["levels"].as_array().unwrap().len(), 4);
    let (_other, space) = folder(&SMALL.replace("hidden = 8", "hidden = 9"));
    fails(&["study", &space, "--merge", &out], &["shard-1-of-1", "results of another study", "another folder"]);
    fails(&["study", &space, "--out", &out], &["results of another study", "another folder"]);
}

#[test]
fn what_is_damaged_or_missing_is_named_and_nothing_else_is_lost() {
    let (home, study) = folder(SMALL);
    let out = within(&home, "out");
    for shard in ["1/3", "3/3"] {
        succeeds(&["study", &study, "--out", &out, "--shard", shard]);
    }
    fails(&["study", "--merge", &out], &["1 of 3 shards are missing: 2"]);
    succeeds(&["study", &study, "--out", &out, "--shard", "2/3"]);
    let shard = files(&out, "parquet")[1].clone();
    let whole = std::fs::read(&shard).unwrap();
    let name = shard.file_name().unwrap().to_str().unwrap().to_owned();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..20 {
        let mut bytes = whole.clone();
        let place = rng.random_range(0..bytes.len());
        bytes[place] ^= 1 << rng.random_range(0..8);
        std::fs::write(&shard, &bytes).unwrap();
        fails(&["study", "--merge", &out], &[&name, "checksum", "remove it"]);
        fails(&["study", &study, "--out", &out, "--shard", "2/3"], &[&name, "checksum", "remove it"]);
    }
    std::fs::write(&shard, &whole[..whole.len() / 2]).unwrap();
    fails(&["study", "--merge", &out], &[&name, "checksum"]);
    std::fs::write(&shard, &whole).unwrap();
    succeeds(&["study", "--merge", &out]);

    let empty = within(&home, "empty");
    std::fs::create_dir(&empty).unwrap();
    fails(&["study", "--merge", &empty], &["empty", "found none"]);
    fails(&["study", "--merge", &within(&home, "study.toml")], &["study.toml", "directory"]);
    let missing = within(&home, "missing");
    fails(&["study", "--merge", &missing], &["missing", "No such file"]);
    assert!(!Path::new(&missing).exists());
    fails(&["study", &study, "--out", &within(&home, "study.toml")], &["--out", "study.toml"]);
}

#[test]
fn a_journal_goes_on_behind_its_last_whole_line_and_no_damage_passes() {
    let (home, study) = folder(SMALL);
    let (whole, out) = (within(&home, "whole"), within(&home, "out"));
    succeeds(&["study", &study, "--out", &whole, "--shard", "1/1"]);
    let expected = only(&whole, "parquet");
    // A journal as a run leaves it that is ended in the middle.
    let mut child =
        program().args(["study", &study, "--out", &out, "--shard", "1/1"]).stdout(Stdio::null()).spawn().unwrap();
    while files_if_any(&out)
        .is_none_or(|journal| std::fs::read_to_string(journal).unwrap_or_default().lines().count() < 4)
    {
        assert!(child.try_wait().unwrap().is_none(), "the run was over before it could be ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let journal = files_if_any(&out).unwrap();
    let text = std::fs::read(&journal).unwrap();
    let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).collect();
    let (header, first, second) = (lines[0], lines[1], lines[2]);

    let mut torn = [header, first, &second[..second.len() / 2]].concat();
    std::fs::write(&journal, &torn).unwrap();
    succeeds(&["study", &study, "--out", &out, "--shard", "1/1"]);
    assert_eq!(std::fs::read(only(&out, "parquet")).unwrap(), std::fs::read(&expected).unwrap());

    // A run that is ended between the file and the journal's end leaves both.
    std::fs::write(&journal, [header, first].concat()).unwrap();
    succeeds(&["study", &study, "--out", &out, "--shard", "1/1"]);
    assert!(files(&out, "journal").is_empty());

    // The same with damage inside.
    std::fs::remove_file(only(&out, "parquet")).unwrap();
    torn = [header, first, second].concat();
    torn[header.len() + first.len() / 2] ^= 1;
    std::fs::write(&journal, &torn).unwrap();
    fails(
        &["study", &study, "--out", &out, "--shard", "1/1"],
        &["shard-1-of-1.journal", "line 2 is corrupt", "remove the file"],
    );
    assert_eq!(std::fs::read(&journal).unwrap(), torn, "what is damaged is left to its owner");
}

fn files_if_any(folder: &str) -> Option<PathBuf> {
    Path::new(folder).exists().then(|| files(folder, "journal").first().cloned())?
}

#[test]
fn two_processes_do_not_run_one_shard() {
    let (home, study) = folder(&SMALL.replace("designs = 30", "designs = 4000"));
    let out = within(&home, "out");
    let mut first =
        program().args(["study", &study, "--out", &out]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while files_if_any(&out).is_none_or(|journal| std::fs::metadata(journal).is_ok_and(|file| file.len() == 0)) {
        assert!(first.try_wait().unwrap().is_none());
    }
    fails(&["study", &study, "--out", &out], &["shard-1-of-1.journal", "another process"]);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_wrong_study_is_an_error_that_names_the_field() {
    for (from, to, texts) in [
        ("designs = 30", "designs = 0", vec!["study.designs", "1 to 1000000", "got 0"]),
        ("designs = 30", "designs = 30\nshots = 1", vec!["study.toml", "shots"]),
        ("stops = [5, 20, 40]", "stops = [7]", vec!["study.stops", "1, 2, 5, 10, 20, 40", "got 7"]),
        ("stops = [5, 20, 40]", "stops = [20, 5]", vec!["study.stops", "each greater"]),
        ("seeds = 3", "seeds = 1", vec!["study.recipe.seeds", "at least 2", "got 1"]),
        (
            "order = [\"ift\", \"orpo\", \"sft\"]",
            "order = [\"ift\", \"grpo\"]",
            vec!["study.order", "sft, orpo, ift", "grpo"],
        ),
        (
            "slippery = [false, true]",
            "slippery = [false, \"wet\"]",
            vec!["factor slippery", "level \"wet\"", "slippery"],
        ),
        (
            "slippery = [false, true]",
            "slipperi = [false]",
            vec!["study.factor.slipperi", "fields of recipes", "slipperi"],
        ),
        ("slippery = [false, true]", "steps = [5, 10]", vec!["study.factor.steps", "but method, seed, seeds, steps"]),
        ("slippery = [false, true]", "slippery = []", vec!["study.factor.slippery", "at least one level"]),
        ("slippery = [false, true]", "slippery = [true, true]", vec!["study.factor.slippery", "\"true\" twice"]),
        ("[0.25, 1.0]", "[0.25, -1.0]", vec!["factor orpo.beta", "level \"-1.0\"", "beta", "-1"]),
        ("\"drawn:any,seed={draw}\"", "\"RDX\"", vec!["design", "trajectory RDX"]),
        (
            "where = { start = \"random\" }",
            "where = { start = \"cold\" }",
            vec!["study.question.where.start", "after sft, random", "cold"],
        ),
        (
            "where = { start = \"random\" }",
            "where = { colour = \"red\" }",
            vec!["study.question", "slippery", "colour"],
        ),
        (
            "where = { start = \"random\" }",
            "where = { distance = \"near\" }",
            vec!["study.question.where.distance", "non_terminal", "near"],
        ),
        (
            "where = { start = \"random\" }",
            "where = { rejected_ends = \"sea\" }",
            vec!["study.question.where.rejected_ends", "hole, goal", "sea"],
        ),
        ("[\"ift.propagation=none\"]", "[1]", vec!["factor coefficients", "level \"none\"", "--set", "\"1\""]),
        ("[factor.coefficients]", "[factor.step]", vec!["study.factor", "no column of the results", "\"step\""]),
    ] {
        let wrong = SMALL.replace(from, to);
        assert_ne!(wrong, SMALL, "{from}");
        let (home, study) = folder(&wrong);
        fails(&["study", &study, "--out", &within(&home, "out")], &texts);
    }
    let (_home, study) = folder(SMALL);
    for (arguments, texts) in [
        (vec!["--out", "x", "--shard", "4/3"], vec!["--shard", "1 <= NUMBER <= OF", "4/3"]),
        (vec!["--out", "x", "--shard", "0/3"], vec!["--shard", "1 <= NUMBER <= OF", "0/3"]),
        (vec![], vec!["--out"]),
    ] {
        fails(&[&["study", &study][..], &arguments].concat(), &texts);
    }
    fails(&["study", "missing.toml", "--out", "x"], &["missing.toml", "No such file"]);
}

#[test]
fn the_studies_of_the_project_are_valid_and_large_enough() {
    Study::load(&root().join("experiments/reproduction-4x4.toml"), None).unwrap();
    let study = Study::load(&root().join("experiments/reproduction.toml"), None).unwrap();
    assert!(study.designs >= 10_000);
    for number in [0, 1, 2, study.designs - 1] {
        assert_eq!(study.design(number).unwrap().levels.len(), study.factors().count());
    }
}

#[test]
fn a_study_is_drawn_again_as_it_was_and_its_effects_have_a_key_and_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let kept = tests::command::root().join("plots/reproduction");
    std::fs::copy(kept.join("study.json"), folder.path().join("study.json")).unwrap();
    succeeds(&["study", "--redraw", folder.path().to_str().unwrap()]);
    for name in ["study.json", "study.md", "pairs.svg", "effects.svg", "order.svg"] {
        let [ours, theirs] = [folder.path(), &kept].map(|folder| std::fs::read_to_string(folder.join(name)).unwrap());
        assert!(ours == theirs, "{name} is not that of plots/reproduction");
    }
    let effects = std::fs::read_to_string(folder.path().join("effects.svg")).unwrap();
    for text in ["share explained", "12.8%", "11.5 to 14.1"] {
        assert!(effects.contains(text), "{text}");
    }
}
