//! Several processes of one run: as threads that exchange data in memory, and as MPI processes.

use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};

use lm::error::LmError;
use lm::link::Link;
use lm::train::micro_batch::plan;
use lm::train::policy::LmPolicy;
use lm::train::ranks::{Processes, Worker};
use lm::train::reference::Reference;
use lm::transformer::batch::Packing;
use lm::transformer::model::tape::Keep;
use objective::{Parameters, registry};
use tch::{Tensor, no_grad};
use text::data::Record;
use text::example::Example;
use training::Step;

use crate::command::two_stages;
use crate::oracle::{device, model};

/// Exchange of data between threads.
#[derive(Debug)]
struct Table {
    bytes: Mutex<Vec<Vec<u8>>>,
    tensors: Mutex<Vec<Vec<Tensor>>>,
    all_here: Barrier,
}

#[derive(Debug)]
struct Seat {
    table: Arc<Table>,
    rank: usize,
}

impl Link for Seat {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.bytes.lock().unwrap().len()
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, LmError> {
        self.table.bytes.lock().unwrap()[self.rank] = own.to_vec();
        self.table.all_here.wait();
        let all = self.table.bytes.lock().unwrap().clone();
        self.table.all_here.wait();
        Ok(all)
    }

    fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError> {
        self.table.tensors.lock().unwrap()[self.rank] = tensors.iter().map(|tensor| tensor.copy()).collect();
        self.table.all_here.wait();
        for (index, tensor) in tensors.iter().enumerate() {
            let all = self.table.tensors.lock().unwrap();
            let sum = all.iter().skip(1).fold(all[0][index].copy(), |sum, given| sum + &given[index]);
            no_grad(|| tensor.shallow_clone().copy_(&sum));
        }
        self.table.all_here.wait();
        Ok(())
    }
}

/// Runs a function in this many workers at the same time, and returns the results.
pub(crate) fn together<T: Send>(size: usize, answer: impl Fn(&Worker) -> T + Sync) -> Vec<T> {
    if size == 1 {
        return vec![answer(&Worker { device: device(), processes: None })];
    }
    let table = Arc::new(Table {
        bytes: Mutex::new(vec![Vec::new(); size]),
        tensors: Mutex::new((0..size).map(|_| Vec::new()).collect()),
        all_here: Barrier::new(size),
    });
    std::thread::scope(|scope| {
        let begin = |rank| {
            let (table, answer) = (Arc::clone(&table), &answer);
            scope.spawn(move || {
                let processes = Some(Processes::new(Seat { table, rank }).into());
                answer(&Worker { device: device(), processes })
            })
        };
        let workers: Vec<_> = (0..size).map(begin).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn what_one_process_refuses_none_goes_on_with_and_each_says_why() {
    let records: Vec<_> = (0..4)
        .map(|index| Record::Demonstration(Example { prompt: vec![3], response: vec![4 + index, 5], end: 0 }))
        .collect();
    for method in ["sft", "aot"] {
        let objective = registry::build(method, &Parameters::new()).unwrap();
        let requirements = objective.requirements();
        let pair = |chosen: &Record<Example>| match chosen {
            Record::Demonstration(example) if method == "aot" => Record::Preference {
                chosen: example.clone(),
                rejected: Example { response: vec![9], ..example.clone() },
            },
            record => record.clone(),
        };
        let records: Vec<_> = records.iter().map(pair).collect();
        let problems = together(2, |worker| {
            let model = model("llama");
            if worker.processes.as_ref().is_some_and(|processes| training::Ranks::rank(&**processes) == 1) {
                let _filled = no_grad(|| model.parameters().last().unwrap().shallow_clone().fill_(f64::NAN));
            }
            let mut policy = LmPolicy::trained(model, Keep::Activations).among(worker.processes.clone());
            let reference = Reference::Held(Box::new(LmPolicy::frozen(crate::oracle::model("llama"))));
            let plans = plan(&requirements, &records.iter().collect::<Vec<_>>(), 1).unwrap();
            let plans = &plans[worker.share(plans.len())];
            let micro_batches = reference.micro_batches(&requirements, policy.model(), plans, Packing::Packed).unwrap();
            Step::new(&*objective).accumulate(&mut policy, &micro_batches, 0.0).unwrap_err().to_string()
        });
        match method {
            // Its own columns are compared with those that an objective can evaluate separately.
            "sft" => {
                assert!(problems[1].starts_with("micro-batch 0: log_prob: "), "{problems:?}");
                assert_eq!(problems[0], format!("process 1: {}", problems[1]));
            }
            // Gathered columns are the same in all processes.
            _ => {
                assert!(problems[1].starts_with("step: log_prob: "), "{problems:?}");
                assert_eq!(problems[0], problems[1]);
            }
        }
    }
}

#[test]
fn a_process_that_leaves_is_heard_at_the_next_exchange_and_what_differs_is_named() {
    let answers = together(2, |worker| {
        worker.same("data", 7).unwrap();
        let first = worker.first(|| Ok(worker.share(5).len())).unwrap();
        assert_eq!((first, worker.any(!worker.is_first()).unwrap()), (2, true));
        if worker.is_first() {
            return worker.any(false).unwrap_err().to_string();
        }
        worker.leave(&LmError::Link { problem: "no memory left".to_owned() });
        // After a failure, no other report is exchanged.
        worker.leave(&LmError::Link { problem: "and no disk".to_owned() });
        String::new()
    });
    assert_eq!(answers[0], "process 1: no memory left");
    let problems = together(3, |worker| worker.same("data", worker.share(6).start / 3).unwrap_err().to_string());
    assert_eq!(problems, ["process 2: its data differs from that of process 0"; 3]);
}

#[test]
fn an_environment_of_processes_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "");
    let out = folder.path().join("out").display().to_string();
    for (variables, device, expected) in [
        (&[("WORLD_SIZE", "two")][..], "cpu", "WORLD_SIZE: expected a whole number, got two"),
        (&[("WORLD_SIZE", "2")], "cuda", "RANK: expected a whole number below WORLD_SIZE = 2, got nothing"),
        (
            &[("WORLD_SIZE", "2"), ("RANK", "2"), ("LOCAL_RANK", "0")],
            "cuda",
            "RANK: expected a whole number below WORLD_SIZE = 2, got 2",
        ),
        (
            &[("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")],
            "cpu",
            "device \"cpu\": processes on CPUs are joined by MPI: build with --features mpi and start with mpirun",
        ),
        (
            &[("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")],
            "cuda:0",
            "device \"cuda:0\": expected cuda, as LOCAL_RANK selects the GPU of this process",
        ),
        #[cfg(not(feature = "mpi"))]
        (
            &[("OMPI_COMM_WORLD_SIZE", "2")],
            "cpu",
            "OMPI_COMM_WORLD_SIZE: expected 1, unless the program is built with --features mpi, got 2",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lm"));
        command.args(["train", &recipe, "--out", &out, "--set", &format!("device={device}")]);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.trim_end()), (Some(2), format!("error: {expected}").as_str()));
    }
}

#[cfg(feature = "mpi")]
mod mpi {
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use serde_json::Value;

    use crate::command::{MODEL, metrics, same, succeeds, two_stages};

    fn lm(processes: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "-n"]);
        command.arg(processes.to_string()).arg(env!("CARGO_BIN_EXE_lm")).args(arguments);
        command
    }

    fn train(processes: usize, recipe: &str, out: &Path, more: &[&str]) {
        let out = out.display().to_string();
        let output = lm(processes, &[&["train", recipe, "--out", &out], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Only one process prints.
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.ends_with(&format!("\nwritten: {out}/model\n")), "{printed}");
        assert_eq!((printed.matches("written").count(), printed.matches("held-out loss").count()), (1, 1), "{printed}");
    }

    #[test]
    fn a_run_of_two_processes_is_that_of_one_but_for_rounding() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = two_stages(&folder, "llama", "micro_batch = 1");
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        // SGD changes the weights in proportion to the gradient, and only a little, so rounding differences stay small.
        let more = ["--set", "optimizer={ name = \"sgd\" }", "--set", "learning_rate=0.02"];
        succeeds(&[&["train", &recipe, "--out", &one.display().to_string()], &more[..]].concat());
        train(2, &recipe, &two, &more);
        let (one, two) = (metrics(&one), metrics(&two));
        assert_eq!(one.len(), two.len());
        for (one, two) in one.iter().zip(&two) {
            let (Value::Object(one), Value::Object(two)) = (one, two) else { panic!("{one} {two}") };
            assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
            for (key, value) in one {
                let (Some(value), Some(other)) = (value.as_f64(), two[key].as_f64()) else {
                    assert_eq!(value, &two[key]);
                    continue;
                };
                assert!((value - other).abs() <= 5e-6 * value.abs().max(1.0), "{key}: {value} and {other}");
            }
        }
    }

    #[test]
    fn processes_of_which_one_is_killed_go_on_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = two_stages(&folder, "llama", "micro_batch = 1\ncheckpoint_every = 1\nsteps = 12");
        let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
        train(2, &recipe, &straight, &[]);
        let out = killed.display().to_string();
        let mut run = lm(2, &["train", &recipe, "--out", &out]).stderr(Stdio::null()).spawn().unwrap();
        let lines = || std::fs::read_to_string(killed.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        let begun = Instant::now();
        while lines() < 4 && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap();
        let last = children.split_whitespace().last().unwrap();
        assert!(Command::new("kill").args(["-9", last]).status().unwrap().success());
        assert!(!run.wait().unwrap().success());
        assert!(!killed.join("model").exists());
        train(2, &recipe, &killed, &["--resume"]);
        same(&killed, &straight, &MODEL);
    }
}
