//! The arguments of `lake`, which are its manual page.

#[cfg_attr(not(feature = "full"), path = "cli/without.rs")]
pub(crate) mod full;
pub(crate) mod meant;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lake::experiment::recipe::{Overrides, declaration, is_label, taken};
use lake::export::State;
use lake::solver::{ACCURACY, Solver};
use objective::Parameter;
use recipe::Declaration;
use recipe::document::document;
use recipe::options::{Groups, Options, Print};
use training::OPTIMIZERS;

/// Measure what an alignment objective teaches, on a lake whose optimal policy is known exactly.
///
/// Trains a small policy from one demonstrated trajectory (and, for methods that compare, a rejected one) over many
/// seeds, and reports how far its transition matrix T(a|s) ends from the optimal one.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(after_help = "See --help for the default recipe and the optimizers, and lake methods for the methods.")]
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
    /// Solve a lake: draw V*, Q* and T* on the map, as far as they fit, and print bounds of their errors.
    Solve(SolveArguments),
    /// List the maps that come with the program, with their trajectories.
    Maps,
    /// Train the same methods on many designs sampled from a declared space, and report in which of them one method
    /// ends closer to the optimal policy than another.
    Study(full::StudyArguments),
    /// Measure policies that any program trained, as `lake` measures its own.
    Measure(MeasureArguments),
    /// Write a lake as conversations, on which a language model can be trained and measured.
    Export(ExportArguments),
    /// List the methods by the data that they learn from, or explain one: idea, formula, parameters, data and source.
    Methods {
        /// The method to explain.
        name: Option<String>,
    },
    /// Print the fields of recipes and studies: as a JSON schema for editors and other languages, or as a commented
    /// recipe of all defaults.
    Schema(SchemaArguments),
    /// Explain a command or a method.
    Help {
        /// A command or a method.
        #[arg(value_name = "COMMAND|METHOD")]
        topic: Option<String>,
    },
}

/// Group of the options that describe the lake, which every command has.
#[derive(Debug)]
pub(crate) struct Lake;

/// Group of the options that describe the lake and the trajectories on it.
#[derive(Debug)]
pub(crate) struct LakeAndData;

/// Group of all fields of a recipe that have an option.
#[derive(Debug)]
pub(crate) struct Whole;

impl Groups for Lake {
    const GROUPS: &'static [&'static str] = &["Lake"];

    fn declaration() -> &'static Declaration {
        declaration()
    }
}

impl Groups for LakeAndData {
    const GROUPS: &'static [&'static str] = &["Lake", "Data"];

    fn declaration() -> &'static Declaration {
        declaration()
    }
}

impl Groups for Whole {
    const GROUPS: &'static [&'static str] = &["Lake", "Data", "Training"];

    fn declaration() -> &'static Declaration {
        declaration()
    }
}

/// Arguments of `lake [OPTIONS]`, which trains.
#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    /// Methods to train: registered methods, names or labels of the recipe's entries, or `all`. Joined
    /// by `+` (`sft+dpo`), methods train one after the other. Parameters follow a colon (`dpo:beta=0.05,dpo:beta=0.5`),
    /// further ones a semicolon (`'dpo:beta=0.05;label_smoothing=0.1'`); rows of equal methods have their parameters as
    /// label.
    #[arg(long, value_name = "NAME[,NAME...]", value_delimiter = ',', help_heading = "Method")]
    pub(crate) method: Vec<String>,

    /// Replace a field of the recipe (`steps=10`), a method's parameter (`dpo.beta=0.2`, or `beta=0.2` where one chosen
    /// method has it), the optimizer's (`optimizer.momentum=0.9`), or one of a stage (`stage.0.method.beta=0.2`).
    /// Repeatable.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Method")]
    set: Vec<String>,

    /// A recipe: a TOML file whose fields replace those of the default recipe. Options given here replace both.
    #[arg(long, value_name = "FILE", help_heading = "Method")]
    pub(crate) recipe: Option<PathBuf>,

    #[command(flatten)]
    fields: Options<Whole>,

    /// Number of threads, by default one per core. No result depends on it.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Output")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,

    /// Print the resolved recipe, or only the fields that differ from the defaults, and train nothing.
    #[arg(long, value_enum, value_name = "FIELDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "all")]
    #[arg(help_heading = "Output")]
    pub(crate) print: Option<Print>,

    /// Print the whole result as JSON.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Also explain each method's result: the cells that its training read, how these differ from the cells that the
    /// policy visits, the probabilities of the trajectories during training, and the agreement of the methods'
    /// gradients.
    #[arg(long, help_heading = "Output")]
    pub(crate) explain: bool,

    /// Also write the result as JSON, the resolved recipe, figures (SVG and PNG) and a page (HTML) into this folder.
    #[arg(long, value_name = "DIR", value_parser = full::folder, help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// Also write the policy of every run into this folder, as a table that `lake measure` reads: METHOD-SEED.csv.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) policies: Option<PathBuf>,
}

/// Arguments of `lake measure [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct MeasureArguments {
    /// The file of a policy, and the method that trained it. Repeatable: several policies of one method are its runs,
    /// and the confidence interval is over them. A file is a table of T(a|s) with one row per non-terminal cell: CSV
    /// with the columns cell, left, down, right, up, or the same fields as lines of JSON (.jsonl); probabilities, or
    /// logarithms in log_left, log_down, log_right, log_up. It may also be the output of `lm score` for the
    /// evaluation.jsonl of `lake export`.
    #[arg(long = "policy", value_name = "[METHOD=]FILE", required = true, help_heading = "Policies")]
    pub(crate) policies: Vec<PolicyArgument>,

    /// Divide each row by its sum, for tables that were rounded to a few decimals. Without it, rows must sum to 1
    /// within 1e-5.
    #[arg(long, help_heading = "Policies")]
    pub(crate) normalise: bool,

    #[command(flatten)]
    fields: Options<Lake>,

    /// The recipe that defines the lake and the optimal policy of the measurement. Options given here replace its
    /// fields.
    #[arg(long, value_name = "FILE", help_heading = "Lake")]
    pub(crate) recipe: Option<PathBuf>,

    /// Print the whole result as JSON.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Also write the result as JSON and figures (SVG and PNG) into this folder.
    #[arg(long, value_name = "DIR", value_parser = full::folder, help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
}

/// A policy's file, with the method that trained the policy.
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

/// Arguments of `lake export [OPTIONS] DIR`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The folder for demonstrations.jsonl, preferences.jsonl, evaluation.jsonl and lake.json, which lists the cell and
    /// the action of each line.
    #[arg(value_name = "DIR")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    fields: Options<LakeAndData>,

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

/// Arguments of `lake solve [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct SolveArguments {
    #[command(flatten)]
    fields: Options<Lake>,

    /// Algorithm that computes V*; by default the fastest one on the lake. All give the same result, each with a
    /// certificate.
    #[arg(long, value_enum, help_heading = "Solver")]
    pub(crate) solver: Option<Solver>,

    /// Error bound to reach for V*(s), if rounding allows it; relative to |V*(s)| where that is below 1.
    #[arg(long, value_name = "NUMBER", value_parser = accuracy, default_value_t = ACCURACY, help_heading = "Solver")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) accuracy: f64,

    /// Number of threads, by default one per core. No result depends on it.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Solver")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,

    /// Print the solution as JSON.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Arguments of `lake schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArguments {
    /// Content to print.
    #[arg(value_enum, default_value_t = Content::Recipe)]
    pub(crate) content: Content,
}

/// Content of `lake schema`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Content {
    /// The JSON schema of recipes.
    Recipe,
    /// The JSON schema of studies.
    Study,
    /// A recipe of all defaults, with comments.
    Defaults,
}

impl TrainArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        let fields = self.fields.fields.clone();
        Overrides { fields, methods: self.method.clone(), assignments: self.set.clone() }
    }
}

impl MeasureArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { fields: self.fields.fields.clone(), ..Overrides::default() }
    }
}

impl ExportArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { fields: self.fields.fields.clone(), ..Overrides::default() }
    }
}

impl SolveArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { fields: self.fields.fields.clone(), ..Overrides::default() }
    }
}

/// Parses an accuracy, a number above 0 and at most 1.
fn accuracy(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| format!("expected a number, 0 < accuracy <= 1, got {text}"))
}

/// Examples of the short help.
pub(crate) const EXAMPLES: [(&str, &str); 3] = [
    ("lake --method ift", "train a method, and measure what it learns"),
    ("lake --method sft,dpo,ift --map 8x8", "compare three on a larger lake"),
    ("lake solve --map 8x8 --slippery", "draw the optimal policy"),
];

/// Last sentence of the short help.
pub(crate) const MORE: &str = "`lake methods` lists the methods, and `lake --help` has all options.";

/// The optimizers with their parameters, from the registry, the default recipe, and examples.
fn manual() -> String {
    let described = |parameters: &[Parameter]| -> String {
        let lines =
            |p: &Parameter| format!("      {} = {}  ({})\n          {}\n", p.name, p.default(), p.allowed(), p.purpose);
        parameters.iter().map(lines).collect()
    };
    let optimizers: String = OPTIMIZERS
        .iter()
        .map(|kind| format!("  {}: {}\n{}", kind.name, kind.summary, described(&(kind.parameters)())))
        .collect();
    let defaults: String = document(declaration()).lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "Methods: `lake methods` lists them, and `lake methods NAME` explains one.\n\n\
         Optimizers and their parameters, with defaults (--set optimizer.NAME=VALUE):\n{optimizers}\n\
         The default recipe:\n{defaults}\n\
         Examples:\n  \
           lake --method ift\n  \
           lake --method all --rejected detour\n  \
           lake --method dpo --set beta=0.5 --slippery --seeds 1024\n  \
           lake --method dpo:beta=0.05,dpo:beta=0.5,ift\n  \
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
