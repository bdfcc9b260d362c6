//! The arguments of `lake`, which are its manual page.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lake::LakeError;
use lake::export::State;
use lake::network::Encoding;
use lake::recipe::{self, DEFAULT, Overrides, is_label, taken};
use lake::solver::{ACCURACY, Solver, Target};
use lake::study::shard::Shard;
use objective::{METHODS, Parameter};
use strum::VariantNames;
use toml::Table;
use training::{OPTIMIZERS, Shape};

/// Measure what an alignment objective teaches, on a lake whose optimal policy is known exactly.
///
/// Trains a small policy from one demonstrated trajectory (and, for methods that compare, a rejected one) over many
/// seeds, and reports how far its transition matrix T(a|s) ends from the optimal one.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = "See --help for methods and their parameters.")]
#[command(after_long_help = manual())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) train: TrainArguments,
}

/// Further commands of `lake`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Solve a lake: draw V*, Q* and T* on the map, as far as they fit, and say how exactly they are known.
    Solve(SolveArguments),
    /// List the maps that come with the program, with their trajectories.
    Maps,
    /// Train the same methods over many designs drawn from a declared space, and say in which of them one ends closer
    /// than another.
    Study(StudyArguments),
    /// Measure policies that any program trained, as `lake` measures its own.
    Measure(MeasureArguments),
    /// Write a lake as conversations, for a language model to learn from and to be measured on.
    Export(ExportArguments),
    /// Print the JSON schema of recipes, for editors and other languages.
    Schema,
}

/// The lake, for every command.
#[derive(Debug, Args)]
struct LakeArguments {
    /// A map that comes with the program (see `lake maps`), a generated one (`generated:8x8,holes=0.2,seed=7`), a list
    /// of rows as Gymnasium's `desc`, or a file: lines of letters, or TOML with `rows` and `[trajectories]`.
    #[arg(long, value_name = "NAME|FILE", help_heading = "Lake")]
    map: Option<String>,

    /// Slip: go the intended way with the success rate, and at right angles to it otherwise.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Lake")]
    slippery: Option<bool>,

    /// The probability of the intended move on a slippery lake; the right angles share the rest evenly.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Lake")]
    success_rate: Option<f64>,

    /// Rewards on arrival in a goal, in a hole, and on ice.
    #[arg(
        long,
        value_name = "GOAL,HOLE,FROZEN",
        value_delimiter = ',',
        allow_negative_numbers = true,
        help_heading = "Lake"
    )]
    #[arg(allow_hyphen_values = true)]
    reward_schedule: Option<Vec<f64>>,

    /// The environment's discount, from 0 to below 1.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Lake")]
    gamma: Option<f64>,

    /// The optimal policy to measure against: the first of the best actions, all of them alike, or Boltzmann over Q* at
    /// temperature 0.1.
    #[arg(long, value_parser = PossibleValuesParser::new(Target::VARIANTS), help_heading = "Lake")]
    target: Option<String>,
}

/// Trajectories to learn from.
#[derive(Debug, Args)]
struct TrajectoryArguments {
    /// The trajectory to imitate: a name that the map has (`optimal`, `hole`, ...), a word over L, D, R, U, or one
    /// drawn (`drawn:shortest,seed=7`; shortest, longer, falling, any, looping or sampled; `moves=8` is the most).
    #[arg(long, value_name = "NAME|WORD", help_heading = "Data")]
    demonstration: Option<String>,

    /// The trajectory to avoid, read by methods that compare.
    #[arg(long, value_name = "NAME|WORD", help_heading = "Data")]
    rejected: Option<String>,
}

/// `lake [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    /// Methods to train: registered methods, names or labels of the recipe's entries, or `all`; joined by `+`
    /// (`sft+dpo`) they train one behind the other. One table compares them.
    #[arg(long, value_name = "NAME[,NAME...]", value_delimiter = ',', help_heading = "Method")]
    method: Vec<String>,

    /// A method's parameter (`dpo.beta=0.2`, or `beta=0.2` where one method is chosen), or the optimizer's
    /// (`optimizer.momentum=0.9`). May be repeated.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Method")]
    set: Vec<String>,

    /// A recipe: a TOML file whose fields replace those of the default recipe. Options given here replace both.
    #[arg(long, value_name = "FILE", help_heading = "Method")]
    pub(crate) recipe: Option<PathBuf>,

    #[command(flatten)]
    lake: LakeArguments,

    /// Measure against what the policy's own network becomes when it is fitted to the optimal policy.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Training")]
    parameterised_target: Option<bool>,

    /// The policy before training: `random`, fitted to T* mixed with the uniform policy (`noisy:0.5`), to T* in a share
    /// of the cells and a wrong action in the rest (`right:0.5`), or trained by another method (`after:sft`).
    #[arg(long, value_name = "START", help_heading = "Training")]
    start: Option<String>,

    /// The policy that distillation learns from: Boltzmann over Q* at temperature 0.01 (`optimal`) or another one
    /// (`optimal:0.5`), or a file with a policy's table, as `lake measure` reads it.
    #[arg(long, value_name = "FILE|optimal", help_heading = "Training")]
    teacher: Option<String>,

    #[command(flatten)]
    trajectories: TrajectoryArguments,

    /// Encoding of a cell for the policy: its index, or its row and its column, which it shares with others.
    #[arg(long, value_parser = PossibleValuesParser::new(Encoding::VARIANTS), help_heading = "Training")]
    encoding: Option<String>,

    /// Units in the policy's hidden layer.
    #[arg(long, value_name = "UNITS", value_parser = count("hidden"), help_heading = "Training")]
    #[arg(allow_negative_numbers = true)]
    hidden: Option<i64>,

    /// The optimizer, with PyTorch's formulas and defaults.
    #[arg(long, value_parser = PossibleValuesParser::new(OPTIMIZERS.iter().map(|kind| kind.name)), help_heading = "Training")]
    optimizer: Option<String>,

    /// The greatest learning rate.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Training")]
    learning_rate: Option<f64>,

    /// Schedule of the learning rate after its warm-up.
    #[arg(long, value_parser = PossibleValuesParser::new(Shape::VARIANTS), help_heading = "Training")]
    schedule: Option<String>,

    /// Share of the steps over which the learning rate rises from 0.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Training")]
    warmup_ratio: Option<f64>,

    /// Clip the gradient to this Euclidean norm.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Training")]
    clip_norm: Option<f64>,

    /// Full-batch optimizer steps.
    #[arg(long, value_name = "COUNT", value_parser = count("steps"), help_heading = "Training")]
    #[arg(allow_negative_numbers = true)]
    steps: Option<i64>,

    /// Independent runs; the confidence interval is over them.
    #[arg(long, value_name = "COUNT", value_parser = count("seeds"), help_heading = "Training")]
    #[arg(allow_negative_numbers = true)]
    seeds: Option<i64>,

    /// The first run's seed; run i takes seed + i. Equal seeds give equal bytes.
    #[arg(long, value_name = "SEED", value_parser = count("seed"), help_heading = "Training")]
    #[arg(allow_negative_numbers = true)]
    seed: Option<i64>,

    /// Threads; by default one a core. No result depends on them.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Output")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,

    /// Print the whole result as JSON.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Also say why each method ends where it does: what its training read, how far that is from where the policy goes,
    /// what became of the trajectories' probabilities, and how far the methods' gradients agree.
    #[arg(long, help_heading = "Output")]
    pub(crate) explain: bool,

    /// Also write the result as JSON, the resolved recipe, figures (SVG and PNG) and a page (HTML) into this folder.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// Also write the policy of every run into this folder, as a table that `lake measure` reads: METHOD-SEED.csv.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) policies: Option<PathBuf>,
}

/// `lake measure [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct MeasureArguments {
    /// A policy, and the method that it is a run of. Repeatable: those of one method are its runs, and the confidence
    /// interval is over them. A file is a table of T(a|s) with a row a non-terminal cell: CSV with the columns cell,
    /// left, down, right, up, or the same fields as lines of JSON (.jsonl); probabilities, or logarithms in log_left,
    /// log_down, log_right, log_up. Or it is what `lm score` answers to the evaluation.jsonl of `lake export`.
    #[arg(long = "policy", value_name = "[METHOD=]FILE", required = true, help_heading = "Policies")]
    pub(crate) policies: Vec<PolicyArgument>,

    /// Divide each row by its sum, for tables that were rounded to a few decimals. Without it, rows must sum to 1
    /// within 1e-5.
    #[arg(long, help_heading = "Policies")]
    pub(crate) normalise: bool,

    #[command(flatten)]
    lake: LakeArguments,

    /// The recipe whose lake and optimal policy they are measured on and against. Options given here replace its
    /// fields.
    #[arg(long, value_name = "FILE", help_heading = "Lake")]
    pub(crate) recipe: Option<PathBuf>,

    /// Print the whole result as JSON.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Also write the result as JSON and figures (SVG and PNG) into this folder.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
}

/// A policy's file with the method that it is a run of.
#[derive(Clone, Debug)]
pub(crate) struct PolicyArgument {
    pub(crate) method: String,
    pub(crate) file: PathBuf,
}

impl FromStr for PolicyArgument {
    type Err = String;

    /// Parses METHOD=FILE or FILE. Text before the first `=` that cannot be a method belongs to the file: `./a=b.csv`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (method, file) = text.split_once('=').filter(|(method, _)| is_label(method)).unwrap_or(("policy", text));
        if let Some(meaning) = taken(method) {
            return Err(format!("expected a label of its own before the =, got \"{method}\", {meaning}"));
        }
        Ok(Self { method: method.to_owned(), file: file.into() })
    }
}

/// `lake export [OPTIONS] DIR`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The folder to write demonstrations.jsonl, preferences.jsonl, evaluation.jsonl and lake.json into, which says
    /// which line is which cell and action.
    #[arg(value_name = "DIR")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    lake: LakeArguments,

    #[command(flatten)]
    trajectories: TrajectoryArguments,

    /// Format of the conversations.
    #[arg(long, value_enum, default_value_t = Format::Lm, help_heading = "Output")]
    pub(crate) format: Format,

    /// Form of states in prompts.
    #[arg(long, value_enum, default_value_t = State::Words, help_heading = "Output")]
    pub(crate) state: State,
}

/// Format of exported conversations.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// `lm train` and `lm score`: lines of JSON.
    Lm,
}

/// `lake solve [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct SolveArguments {
    #[command(flatten)]
    lake: LakeArguments,

    /// Algorithm that computes V*; by default the fastest one on the lake. All give the same result, each with a
    /// certificate.
    #[arg(long, value_enum, help_heading = "Solver")]
    pub(crate) solver: Option<Solver>,

    /// The error bound of V*(s) to reach if rounding allows, relative to |V*(s)| where that is below 1.
    #[arg(long, value_name = "NUMBER", value_parser = accuracy, default_value_t = ACCURACY, help_heading = "Solver")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) accuracy: f64,

    /// Threads; by default one a core. No result depends on them.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Solver")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,

    /// Print the solution as JSON.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `lake study [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    /// TOML file with the space of designs and the claims, such as experiments/reproduction.toml.
    #[arg(value_name = "FILE", required_unless_present_any = ["merge", "redraw"])]
    pub(crate) file: Option<PathBuf>,

    /// Folder of the results. Repeat the command to continue after an interruption.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["merge", "redraw", "design"], help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// Run one part of the designs only, for machines beside one another: `3/100` is the third of a hundred.
    #[arg(long, value_name = "NUMBER/OF", conflicts_with_all = ["merge", "design"], help_heading = "Designs")]
    pub(crate) shard: Option<Shard>,

    /// Put the shards in this folder together, and write tables and figures beside them. The claims are those of the
    /// file, or without one those that the shards were made for.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "design"], help_heading = "Output")]
    pub(crate) merge: Option<PathBuf>,

    /// Write the tables and figures of this folder's study.json again, without training.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "merge", "shard", "out", "design", "designs"])]
    #[arg(help_heading = "Output")]
    pub(crate) redraw: Option<PathBuf>,

    /// Draw this many designs rather than the file's number; the first are the same.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, help_heading = "Designs")]
    pub(crate) designs: Option<usize>,

    /// Print the recipe of this design, to be run with `lake --recipe`, and nothing else.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Designs")]
    pub(crate) design: Option<usize>,

    /// Threads; by default one a core. No result depends on them.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Output")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,

    /// Print what was found as JSON.
    #[arg(long, conflicts_with = "design", help_heading = "Output")]
    pub(crate) json: bool,
}

impl LakeArguments {
    fn fields(&self) -> Table {
        let mut fields = Table::new();
        put(&mut fields, "map", self.map.clone());
        put(&mut fields, "slippery", self.slippery);
        put(&mut fields, "success_rate", self.success_rate);
        put(&mut fields, "reward_schedule", self.reward_schedule.clone());
        put(&mut fields, "gamma", self.gamma);
        put(&mut fields, "target", self.target.clone());
        fields
    }
}

impl TrajectoryArguments {
    fn fields(&self) -> Table {
        let mut fields = Table::new();
        put(&mut fields, "demonstration", self.demonstration.clone());
        put(&mut fields, "rejected", self.rejected.clone());
        fields
    }
}

impl TrainArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        let mut fields = self.lake.fields();
        put(&mut fields, "parameterised_target", self.parameterised_target);
        put(&mut fields, "start", self.start.clone());
        put(&mut fields, "teacher", self.teacher.clone());
        fields.extend(self.trajectories.fields());
        put(&mut fields, "encoding", self.encoding.clone());
        put(&mut fields, "learning_rate", self.learning_rate);
        put(&mut fields, "schedule", self.schedule.clone());
        put(&mut fields, "warmup_ratio", self.warmup_ratio);
        put(&mut fields, "clip_norm", self.clip_norm);
        for (name, count) in
            [("hidden", self.hidden), ("steps", self.steps), ("seeds", self.seeds), ("seed", self.seed)]
        {
            put(&mut fields, name, count);
        }
        let optimizer = self.optimizer.clone().map(|name| Table::from_iter([("name".to_owned(), name.into())]));
        put(&mut fields, "optimizer", optimizer);
        Overrides { fields, methods: self.method.clone(), assignments: self.set.clone() }
    }
}

impl MeasureArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { fields: self.lake.fields(), ..Overrides::default() }
    }
}

impl ExportArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        let fields = self.lake.fields().into_iter().chain(self.trajectories.fields()).collect();
        Overrides { fields, ..Overrides::default() }
    }
}

impl SolveArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { fields: self.lake.fields(), ..Overrides::default() }
    }
}

/// Parser of a count, such as seeds or steps, with the range of that field in a recipe.
fn count(field: &'static str) -> impl Fn(&str) -> Result<i64, LakeError> + Clone {
    move |text| recipe::count(field, text)
}

/// An accuracy that is one.
fn accuracy(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| format!("expected a number, 0 < accuracy <= 1, got {text}"))
}

fn put(fields: &mut Table, name: &str, value: Option<impl Into<toml::Value>>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The default recipe, and methods and optimizers with their parameters, from the registries.
fn manual() -> String {
    let described = |parameters: &[Parameter]| -> String {
        let lines =
            |p: &Parameter| format!("      {} = {}  ({})\n          {}\n", p.name, p.default(), p.allowed(), p.purpose);
        parameters.iter().map(lines).collect()
    };
    let methods: String = METHODS
        .iter()
        .map(|m| format!("  {}: {}\n      {}\n{}", m.name, m.summary, m.source, described(&(m.parameters)())))
        .collect();
    let optimizers: String = OPTIMIZERS
        .iter()
        .map(|kind| format!("  {}: {}\n{}", kind.name, kind.summary, described(&(kind.parameters)())))
        .collect();
    let defaults: String = DEFAULT.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "Methods and their parameters, with defaults:\n{methods}\n\
         Optimizers and their parameters, with defaults (--set optimizer.NAME=VALUE):\n{optimizers}\n\
         The default recipe:\n{defaults}\n\
         Examples:\n  \
           lake --method ift\n  \
           lake --method all --rejected detour\n  \
           lake --method dpo --set beta=0.5 --slippery --seeds 1024\n  \
           lake --recipe experiments/propagation.toml --out result\n  \
           lake --method ift --policies policies\n  \
           lake measure --policy ift=policies/ift-0.csv --policy ift=policies/ift-1.csv\n  \
           lake export --map 4x4 --format lm data\n  \
           lake study experiments/reproduction.toml --out study\n  \
           lake solve --map 8x8 --slippery --target ties\n  \
           lake solve --map generated:1000x1000,holes=0.1 --slippery --solver prioritised --accuracy 1e-8\n\n\
         Exit code 0 on success, 2 on any error."
    )
}
