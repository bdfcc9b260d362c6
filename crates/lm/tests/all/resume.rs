//! Interrupted runs resume with the same results as uninterrupted ones.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ndarray_rand::rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::command::{MODEL, adapters, fails, lines, metrics, same, succeeds, two_stages, write};
use crate::oracle::checkpoint;

fn begin(recipe: &str, out: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lm"));
    command.args(["train", recipe, "--out", out.to_str().unwrap()]).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn train(recipe: &str, out: &Path, more: &[&str]) {
    let ended = begin(recipe, out, more).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills the run as soon as this checkpoint exists.
fn kill_behind(recipe: &str, out: &Path, checkpoint: &str, more: &[&str]) {
    let mut child = begin(recipe, out, more);
    wait_for(&out.join("checkpoints").join(checkpoint));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits until a checkpoint is being written, or for a short time.
fn wait_for_writing(folder: &Path, child: &mut Child) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) && child.try_wait().unwrap().is_none() {
        if folder.exists() && names(folder).iter().any(|name| name.starts_with(".unfinished")) {
            return;
        }
    }
}

#[test]
fn kill_9_at_100_random_moments_loses_nothing_and_ends_in_the_same_bytes() {
    // A killed process's writes are complete in the kernel, so a test on disk would be slower and prove no more.
    let memory = Path::new("/dev/shm");
    let folder = if memory.exists() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let recipe = two_stages(&folder, "llama", "steps = 60\nkeep_best = true");
    let assignments =
        [&["--resume", "--set", "checkpoint_every=1"][..], &["--resume", "--set", "checkpoint_every=3"][..]];
    let whole: Vec<PathBuf> = (0..2).map(|index| folder.path().join(format!("whole-{index}"))).collect();
    let begun = Instant::now();
    for (whole, more) in whole.iter().zip(assignments) {
        train(&recipe, whole, more);
    }
    // Kills fall into the start as well as into later phases, on machines of any speed.
    let longest = (begun.elapsed() / 4).max(Duration::from_millis(50)).as_micros() as u64;
    let mut rng = ChaCha8Rng::seed_from_u64(100);
    let (mut kills, mut resumed, mut writing, mut round) = (0, 0, 0, 0);
    let mut newest = (0, 0);
    let position = |name: &str| -> Option<(u64, u64)> {
        let (stage, step) = name.split_once('-')?;
        Some((stage.parse().ok()?, step.parse().ok()?))
    };
    loop {
        let (which, out) = (round % 2, folder.path().join(format!("killed-{round}")));
        let mut child = begin(&recipe, &out, assignments[which]);
        // The last round runs to completion.
        if kills < 100 {
            std::thread::sleep(Duration::from_micros(rng.random_range(0..longest)));
            if kills % 2 == 1 {
                wait_for_writing(&out.join("checkpoints"), &mut child);
            }
        } else {
            child.wait().unwrap();
        }
        let finished = child.try_wait().unwrap();
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        if let Some(status) = finished {
            assert!(status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            same(&out, &whole[which], &MODEL);
            assert!(
                std::fs::read(out.join("best/model.safetensors")).unwrap()
                    == std::fs::read(whole[which].join("best/model.safetensors")).unwrap()
            );
            assert!(!names(&out).iter().any(|name| name.starts_with(".unfinished")), "{:?}", names(&out));
            (round, newest) = (round + 1, (0, 0));
            if kills >= 100 {
                break;
            }
            continue;
        }
        kills += 1;
        let checkpoints = out.join("checkpoints");
        if checkpoints.exists() {
            let found = names(&checkpoints);
            writing += usize::from(found.iter().any(|name| name.starts_with(".unfinished")));
            // No run loses progress, and whatever has its final name is complete, or the next process would warn of it.
            let last = found.iter().filter_map(|name| position(name)).max().unwrap_or_default();
            assert!(last >= newest, "{last:?} {newest:?}");
            resumed += usize::from(last > (0, 0));
            newest = last;
        }
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!told.contains("warning") && !told.contains("error"), "{told}");
    }
    eprintln!(
        "{kills} kills, {resumed} behind a checkpoint, {writing} while one was written, {round} rounds, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    assert!(resumed > 20, "{resumed} of {kills} runs went on behind checkpoints");
}

#[test]
fn ctrl_c_and_sigterm_end_the_step_and_leave_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "steps = 400");
    let whole = folder.path().join("whole");
    train(&recipe, &whole, &[]);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = folder.path().join(signal);
        let child = begin(&recipe, &out, &[]);
        let metrics = out.join("metrics.jsonl");
        wait_for(&metrics);
        while std::fs::metadata(&metrics).unwrap().len() < 2000 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let ended = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{told}");
        assert!(told.contains("--resume continues from there"), "{told}");
        assert_eq!(names(&out.join("checkpoints")).len(), 1);
        assert!(!out.join("model").exists());
        train(&recipe, &out, &["--resume"]);
        same(&out, &whole, &MODEL);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // The first step takes long enough for both signals.
    let recipe = two_stages(&folder, "llama", "batch = 60000");
    let out = folder.path().join("out");
    let mut child = begin(&recipe, &out, &[]);
    wait_for(&out.join("metrics.jsonl"));
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(100));
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!out.join("checkpoints/0-1").exists());
}

#[test]
fn every_precision_optimizer_and_reference_goes_on_bit_for_bit_in_either_stage() {
    let folder = tempfile::tempdir().unwrap();
    for (index, more) in [
        "dtype = \"bfloat16\"\nprecision = \"stochastic\"",
        "dtype = \"bfloat16\"\nprecision = \"masters\"",
        "reference = \"hold\"",
        "schedule = \"linear\"\nactivation_checkpointing = true",
    ]
    .into_iter()
    .enumerate()
    {
        let recipe = two_stages(&folder, "qwen2", &format!("checkpoint_every = 2\nkeep_last = 1\n{more}"));
        let whole = folder.path().join(format!("whole-{index}"));
        train(&recipe, &whole, &[]);
        let out = folder.path().join(format!("out-{index}"));
        kill_behind(&recipe, &out, "0-4", &["--resume"]);
        kill_behind(&recipe, &out, "0-8", &["--resume"]);
        kill_behind(&recipe, &out, "1-2", &["--resume"]);
        // The reference's statistics are read from the cache, or computed from the stage's initial weights.
        for name in names(&out).iter().filter(|name| name.starts_with("reference-")) {
            std::fs::remove_file(out.join(name)).unwrap();
        }
        kill_behind(&recipe, &out, "1-6", &["--resume"]);
        train(&recipe, &out, &["--resume"]);
        same(&out, &whole, &MODEL);
        assert_eq!(names(&out.join("checkpoints")), ["1-8"]);
        // A complete run is not changed.
        train(&recipe, &out, &["--resume"]);
        same(&out, &whole, &MODEL);
    }
}

#[test]
fn an_objective_that_remembers_goes_on_with_what_it_knew() {
    let folder = tempfile::tempdir().unwrap();
    let labelled =
        (0..8_u32).map(|index| json!({"prompt_ids": [5, 6], "response_ids": [7 + index, 8], "label": index % 2 == 0}));
    let data = write(&folder, "labelled.jsonl", &lines(labelled));
    let text = format!(
        "model = \"{}\"\nbatch = 4\nsteps = 9\nlearning_rate = 1e-3\ncheckpoint_every = 2\n[[stage]]\nmethod = {{ name = \"bco\" }}\ndata = [{{ path = \"{data}\" }}]\n",
        checkpoint("gemma").display()
    );
    let recipe = write(&folder, "bco.toml", &text);
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    train(&recipe, &whole, &[]);
    kill_behind(&recipe, &out, "0-4", &["--resume"]);
    let marker = std::fs::read_to_string(out.join("checkpoints/0-4/checkpoint.json")).unwrap();
    let marker: Value = serde_json::from_str(&marker).unwrap();
    assert!(marker["content"]["progress"]["state"]["rewards"]["count"].as_u64().unwrap() > 0, "{marker}");
    train(&recipe, &out, &["--resume"]);
    same(&out, &whole, &MODEL);
}

/// A file of a checkpoint, a way to damage it, and the expected error.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);

#[test]
fn a_damaged_checkpoint_is_passed_over_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "checkpoint_every = 2\nkeep_last = 3");
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    train(&recipe, &whole, &[]);
    let damages: [Damage<'_>; 4] = [
        ("optimizer.safetensors", &|path| cut(path), "optimizer.safetensors is damaged"),
        ("weights.safetensors", &|path| flip(path), "weights.safetensors is damaged"),
        ("checkpoint.json", &|path| flip(path), "checkpoint.json"),
        ("checkpoint.json", &|path| std::fs::remove_file(path).unwrap(), "checkpoint.json: No such file"),
    ];
    for (file, damage, told) in damages {
        _ = std::fs::remove_dir_all(&out);
        kill_behind(&recipe, &out, "1-6", &[]);
        let newest = names(&out.join("checkpoints")).last().unwrap().clone();
        damage(&out.join("checkpoints").join(&newest).join(file));
        let ended = begin(&recipe, &out, &["--resume"]).wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{error}");
        assert!(error.contains("warning: ") && error.contains(told) && error.contains(&newest), "{error}");
        same(&out, &whole, &MODEL);
    }
    // If there is nothing to resume from, no new run overwrites the folder.
    let out = folder.path().join("lost");
    kill_behind(&recipe, &out, "0-2", &[]);
    for name in names(&out.join("checkpoints")) {
        flip(&out.join("checkpoints").join(name).join("weights.safetensors"));
    }
    fails(&["train", &recipe, "--out", out.to_str().unwrap(), "--resume"], "is damaged");
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_goes_on_with_its_own_recipe_model_and_data_only() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "checkpoint_every = 2");
    let out = folder.path().join("out");
    let place = out.display().to_string();
    kill_behind(&recipe, &out, "0-4", &[]);
    let before = std::fs::read(out.join("metrics.jsonl")).unwrap();
    let again = |more: &[&str], message: &str| {
        fails(&[&["train", &recipe, "--out", &place], more].concat(), message);
        assert_eq!(std::fs::read(out.join("metrics.jsonl")).unwrap(), before);
    };
    again(&[], "metrics.jsonl: it contains a run already: with its recipe.toml, --resume continues it");
    again(
        &["--resume", "--set", "stage.1.method.beta=0.5"],
        "recipe.toml: stage.1.method.beta: the run to resume has 0.1, but the recipe has 0.5",
    );
    again(&["--resume", "--set", "seed=4"], "recipe.toml: seed: the run to resume has 0, but the recipe has 4");
    let written = out.join("recipe.toml").display().to_string();
    let expected = format!("to resume it unchanged, use `lm train {written} --out {} --resume`", out.display());
    again(&["--resume", "--set", "seed=4"], &expected);
    let data = folder.path().join("pairs.jsonl");
    let text = std::fs::read_to_string(&data).unwrap();
    std::fs::write(&data, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    again(&["--resume"], "the data has changed since then: expected the fingerprint ");
    std::fs::write(&data, text).unwrap();

    // Another model in the same place.
    let model = folder.path().join("model");
    let copy = |name: &str| {
        _ = std::fs::remove_dir_all(&model);
        std::fs::create_dir(&model).unwrap();
        for file in names(&checkpoint(name)) {
            std::fs::copy(checkpoint(name).join(&file), model.join(&file)).unwrap();
        }
    };
    copy("llama");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let recipe =
        write(&folder, "own.toml", &text.replace(&checkpoint("llama").display().to_string(), model.to_str().unwrap()));
    let out = folder.path().join("own");
    kill_behind(&recipe, &out, "0-4", &[]);
    copy("qwen2");
    fails(
        &["train", &recipe, "--out", out.to_str().unwrap(), "--resume"],
        "the model that is trained has changed since",
    );
}

#[test]
fn the_newest_checkpoints_stay_and_the_best_model() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "checkpoint_every = 1\nkeep_last = 3");
    let out = folder.path().join("out");
    let best = "best=\"rewards/accuracies\"";
    let set = ["--set", "stage.1.keep_best=true", "--set", &format!("stage.1.{best}")];
    train(&recipe, &out, &set);
    assert_eq!(names(&out.join("checkpoints")), ["1-6", "1-7", "1-8"]);
    let scores: Vec<f64> = metrics(&out)
        .iter()
        .filter(|row| row["held_out"] == true && row["stage"] == 1)
        .map(|row| row["rewards/accuracies"].as_f64().unwrap())
        .collect();
    let first_best = scores.iter().position(|score| *score == scores.iter().copied().fold(0.0, f64::max)).unwrap();
    assert!(first_best > 0, "{scores:?}");
    succeeds(&["inspect", "--model", out.join("best").to_str().unwrap()]);
    // Metrics as TensorBoard shows them, by the tags in its file.
    let events = names(&out.join("tensorboard"));
    assert!(events.len() == 1 && events[0].starts_with("events.out.tfevents."), "{events:?}");
    let text = std::fs::read(out.join("tensorboard").join(&events[0])).unwrap();
    for tag in ["train/loss", "train/learning_rate", "train/gradient_norm", "held_out/rewards/accuracies"] {
        assert!(text.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
    let place = folder.path().join("refused").display().to_string();
    let refused = |assignments: &[&str], message: &str| {
        let sets = assignments.iter().flat_map(|assignment| ["--set", assignment]);
        fails(&["train", &recipe, "--out", &place].into_iter().chain(sets).collect::<Vec<_>>(), message);
    };
    refused(&["keep_best=true", "best=beauty"], "stage[0].best: expected one of loss, ");
    refused(&[best], "stage[0].best: expected nothing, as keep_best is false, got rewards/accuracies");
    refused(&["keep_last=0"], "stage[0].keep_last: expected at least 1, got 0");
    refused(
        &["keep_best=true", "stage.1.evaluation=[]"],
        "stage[1].keep_best: expected false, as there are no held-out data",
    );
}

#[test]
fn a_step_that_diverges_names_its_records_and_leaves_the_state_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "learning_rate = 1e25\nwarmup_ratio = 0");
    let out = folder.path().join("out");
    let ended = begin(&recipe, &out, &[]).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(
        told.contains("stage 0, step ") && told.contains("; its records: ") && told.contains("pairs.jsonl:"),
        "{told}"
    );
    let kept = names(&out.join("checkpoints"));
    assert!(kept.len() == 1 && kept[0].starts_with("0-"), "{kept:?}");
    assert!(told.contains(&format!("step {}: ", &kept[0][2..])), "{told} {kept:?}");
    // It diverges again at the same step.
    fails(&["train", &recipe, "--out", out.to_str().unwrap(), "--resume"], "; its records: ");
}

#[test]
fn two_runs_do_not_write_to_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "steps = 100000");
    let out = folder.path().join("out");
    let mut child = begin(&recipe, &out, &[]);
    wait_for(&out.join("metrics.jsonl"));
    fails(
        &["train", &recipe, "--out", out.to_str().unwrap(), "--resume"],
        "out: another process is training into this folder",
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A small file system, which is unmounted when it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, bytes: usize) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_run_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "checkpoint_every = 1\nkeep_last = 2");
    let whole = folder.path().join("whole");
    train(&recipe, &whole, &[]);
    let checkpoint = whole.join("checkpoints/1-8");
    let bytes: u64 =
        names(&checkpoint).iter().map(|name| std::fs::metadata(checkpoint.join(name)).unwrap().len()).sum();
    // Room for two checkpoints and half of a third.
    let room = usize::try_from(bytes * 5 / 2).unwrap();
    let Some(small) = Small::mount(folder.path().join("small"), room) else {
        eprintln!("skipped: only root may mount a small file system");
        return;
    };
    let out = small.0.join("out");
    let ended = begin(&recipe, &out, &[]).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(names(&out.join("checkpoints")), ["0-1", "0-2"]);
    let status = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small.0).status().unwrap();
    assert!(status.success());
    train(&recipe, &out, &["--resume"]);
    same(&out, &whole, &MODEL);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "");
    let Some(small) = Small::mount(folder.path().join("small"), 1 << 20) else {
        eprintln!("skipped: only root may mount a file system that is read-only to root");
        return;
    };
    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&small.0).status().unwrap();
    assert!(status.success());
    for more in [&[][..], &["--resume"][..]] {
        let out = small.0.display().to_string();
        fails(&[&["train", &recipe, "--out", &out], more].concat(), "Read-only file system");
    }
}

#[test]
fn a_checkpoint_is_exported_as_the_run_itself_would_write_it() {
    let folder = tempfile::tempdir().unwrap();
    let whole = two_stages(&folder, "llama", "");
    for (name, recipe, trained, files) in [
        ("whole", whole, "model", ["config.json", "model.safetensors"]),
        ("adapted", adapters(&folder, "dpo"), "adapter", ["adapter_config.json", "adapter_model.safetensors"]),
    ] {
        let out = folder.path().join(name);
        train(&recipe, &out, &[]);
        let (run, target) = (out.display().to_string(), folder.path().join(format!("exported-{name}")));
        let exported = target.display().to_string();
        succeeds(&["export", "--run", &run, "--out", &exported]);
        for file in files {
            let [own, expected] = [&target, &out.join(trained)].map(|folder| std::fs::read(folder.join(file)).unwrap());
            assert!(own == expected, "{file}");
        }
        fails(&["export", "--run", &run, "--out", &exported], "exported-");
        let missing = ["export", "--run", &run, "--checkpoint", "7-1", "--out", &format!("{exported}-more")];
        fails(&missing, "checkpoints: there is no checkpoint 7-1; existing ones: ");
    }
    let none = folder.path().join("none").display().to_string();
    fails(&["export", "--run", &none, "--out", &format!("{none}-out")], "none/checkpoints: there is no checkpoint");
}
