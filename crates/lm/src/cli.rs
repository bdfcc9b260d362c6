//! The arguments of `lm`, which are its manual page.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lm::checkpoint::config::Dtype;
use lm::train::checkpoint::Position;
use recipe::options::Print;
use strum::VariantNames;
use text::data::instruction::Layout;

/// Fine-tune a Hugging Face language model with any alignment objective, and score, generate and serve with it.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands of `lm`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model by a recipe, and save it as a folder that `transformers` loads.
    Train(TrainArguments),
    /// Compute the log-probabilities of responses under a model: a line of JSON for each line of data, with
    /// `response_ids`, `log_prob` (nats, one a response token) and `sum`.
    Score(ScoreArguments),
    /// Generate responses to prompts: a line of JSON for each, with `response_ids`, `log_prob` (nats), `text` and
    /// `finish`.
    Generate(GenerateArguments),
    /// Serve an OpenAI-compatible HTTP API, with batched requests, until Ctrl-C or SIGTERM.
    Serve(ServeArguments),
    /// Compare two models' answers by a judge, each pair in both orders: how often A is preferred, with and without
    /// answers' lengths held equal. Repeat the command to continue after an interruption.
    Judge(JudgeArguments),
    /// Add adapters to the weights of their model, and save the result as a folder that `transformers` loads.
    Merge(MergeArguments),
    /// Save a checkpoint of a run as a folder that `transformers` loads, or adapters as `peft` does.
    Export(ExportArguments),
    /// Compare results of lm-evaluation-harness: a table in Markdown, with an average and standard errors.
    Compare(CompareArguments),
    /// Show a model's architecture and parameters, and the memory that a recipe needs.
    Inspect(InspectArguments),
    /// List the methods by the data that they learn from, or explain one: idea, formula, parameters, data and source.
    Methods {
        /// The method to explain.
        name: Option<String>,
    },
    /// Print the fields of recipes: as a JSON schema for editors and other languages, or as a commented recipe of all
    /// defaults.
    Schema(SchemaArguments),
    /// Explain a command or a method.
    Help {
        /// A command or a method.
        #[arg(value_name = "COMMAND|METHOD")]
        topic: Option<String>,
    },
}

/// Examples of the short help.
pub(crate) const EXAMPLES: [(&str, &str); 3] = [
    ("lm train recipe.toml --out trained", "fine-tune a model by a recipe"),
    ("lm generate --model trained --prompt \"Hello.\"", "answer a prompt"),
    ("lm serve --model trained", "serve an OpenAI-compatible API"),
];

/// Last sentence of the short help.
pub(crate) const MORE: &str = "`lm methods` lists the methods, and `lm help COMMAND` has a command's options.";

/// Arguments of `lm train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    /// Recipe of the training: a model, and stages with a method and data each. Absent fields have the values of `lm
    /// schema defaults`.
    #[arg(value_name = "RECIPE.toml")]
    pub(crate) recipe: PathBuf,

    /// Replace a field: `learning_rate=1e-6` for every stage, `stage.0.method.beta=0.2` for one, `beta=0.2` for the
    /// only method with such a parameter. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) assignments: Vec<String>,

    /// The folder of the trained model, the checkpoints, the metrics (also for TensorBoard) and the resolved recipe.
    #[arg(long, value_name = "FOLDER", required_unless_present = "print")]
    pub(crate) out: Option<PathBuf>,

    /// Resume from the newest checkpoint in the folder, with the same result as without the interruption; start from
    /// the beginning if there is none.
    #[arg(long)]
    pub(crate) resume: bool,

    /// Print the resolved recipe, or only the fields that differ from the defaults, and do nothing.
    #[arg(long, value_enum, value_name = "FIELDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "all")]
    pub(crate) print: Option<Print>,
}

/// Arguments of `lm schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArguments {
    /// Content to print.
    #[arg(value_enum, default_value_t = Content::Recipe)]
    pub(crate) content: Content,
}

/// Content of `lm schema`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Content {
    /// The JSON schema of recipes.
    Recipe,
    /// A recipe of all defaults, with comments.
    Defaults,
}

/// The model, its device and its type of numbers.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// A folder, or a model of the hub as `owner/name` or `owner/name@revision`.
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) model: String,

    /// Adapters of the model, in PEFT's layout: a folder, or a repository of the hub.
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) adapter: Option<String>,

    /// Device: `cpu`, `cuda` or `cuda:INDEX`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: String,

    /// Type of numbers that the model computes in.
    #[arg(long, value_name = "DTYPE", default_value = "float32", value_parser = dtypes())]
    pub(crate) dtype: Dtype,
}

/// Arguments of `lm score`.
#[derive(Debug, Args)]
pub(crate) struct ScoreArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// JSON lines or Parquet: prompt and completion, messages, pairs, or `{"prompt_ids": [...], "response_ids":
    /// [...]}`, for which no tokenizer is needed.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,

    /// Write the results to this file, which appears when all are complete, rather than print them.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Truncate responses so that an example has at most this many tokens, which may exceed the model's
    /// `max_position_embeddings`. Without this option an example beyond those positions is an error.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_length: Option<usize>,

    /// Approximate number of tokens in one forward pass.
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    pub(crate) batch_tokens: usize,
}

/// Arguments of `lm generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// Prompt, as a user's message; repeatable. If the model has no chat template, it is continued as plain text.
    #[arg(long, value_name = "TEXT", required_unless_present = "data", conflicts_with = "data")]
    pub(crate) prompt: Vec<String>,

    /// A data file whose prompts are read: `prompt` (text or turns), `messages`, or `prompt_ids`, for which no
    /// tokenizer is needed. Responses in its records are ignored.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,

    /// Format of a benchmark's prompts and of answers for `lm judge`: `alpaca_eval` for AlpacaEval's instructions,
    /// `tldr` for posts to be summarised. The prompts are a JSON list, JSON lines or Parquet.
    #[arg(long, value_name = "FORMAT", value_parser = layouts(), requires = "data", requires = "generator", conflicts_with = "prompt")]
    pub(crate) format: Option<Layout>,

    /// Name of the model in the output of `--format`.
    #[arg(long, value_name = "NAME", requires = "format", value_parser = generator)]
    pub(crate) generator: Option<String>,

    /// Append each answer to this file as soon as it is complete, rather than print it. With `--format`, answers are in
    /// FILE.jsonl until all are complete; then FILE appears.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Continue after the answers that the file of `--out` already has; start a new file where there is none. The
    /// settings must be those in FILE.asked.json.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,

    /// Maximum number of tokens of a response.
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub(crate) max_tokens: usize,

    /// Number that logits are divided by before a token is sampled; 0 takes the most probable token. The defaults of
    /// this and the next four options come from the model's `generation_config.json`, as in transformers: unless it has
    /// `do_sample`, the most probable token is taken.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) temperature: Option<f64>,

    /// Sample from this many of the most probable tokens; 0 means all.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) top_k: Option<usize>,

    /// Sample from the most probable tokens whose total probability is this.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) top_p: Option<f64>,

    /// Sample from tokens whose probability is at least this fraction of the greatest.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) min_p: Option<f64>,

    /// Penalty of tokens that the prompt or the response already has: their positive logits are divided by it, negative
    /// ones multiplied; 1 is none.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) repetition_penalty: Option<f64>,

    /// File to read in place of the model's `generation_config.json`; `none` reads no file.
    #[arg(long, value_name = "FILE|none")]
    pub(crate) generation_config: Option<PathBuf>,

    /// Seed of sampling, from which each prompt has its own stream.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Token that ends a response, besides the model's own; repeatable.
    #[arg(long = "stop", value_name = "ID")]
    pub(crate) stop: Vec<u32>,

    /// Number of prompts that are answered at the same time.
    #[arg(long, value_name = "PROMPTS", default_value_t = 8)]
    pub(crate) batch: usize,
}

/// Arguments of `lm serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// Name of the model in requests; by default the last part of its folder or id.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Address to listen on. A non-loopback address requires an API key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,

    /// Port to listen on; 0 picks a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub(crate) port: u16,

    /// API key, which requests must send as `Authorization: Bearer KEY`.
    #[arg(long, value_name = "KEY", env = "LM_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,

    /// File to read in place of the model's `generation_config.json`; `none` reads no file. It has the tokens that end
    /// an answer and the defaults of requests' sampling.
    #[arg(long, value_name = "FILE|none")]
    pub(crate) generation_config: Option<PathBuf>,

    /// Maximum number of sequences that are generated at the same time.
    #[arg(long, value_name = "SEQUENCES", default_value_t = 256)]
    pub(crate) batch: usize,

    /// Maximum number of prompts that are answered or queued; further requests are rejected with status 429.
    #[arg(long, value_name = "PROMPTS", default_value_t = 1024)]
    pub(crate) queue: usize,

    /// Number of tokens in the KV cache, including those of finished prompts.
    #[arg(long, value_name = "TOKENS", default_value_t = 1 << 14)]
    pub(crate) cache_tokens: usize,

    /// Maximum number of tokens of an answer.
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    pub(crate) max_tokens: usize,

    /// Maximum size of a request, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub(crate) body_bytes: usize,

    /// Time limit of an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) answer_seconds: u64,

    /// Time limit for a client to send a request, and to receive each part of an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) request_seconds: u64,

    /// Time that in-flight answers have to finish when the server shuts down.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) grace_seconds: u64,

    /// Maximum number of open connections. At most half of them may be idle or serve paths that need no key.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 1024)]
    pub(crate) connections: usize,

    /// Maximum number of open connections per client address.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 512)]
    pub(crate) connections_per_address: usize,

    /// Host name that requests may address, besides localhost and IP addresses; may be given several times. A server on
    /// a loopback address rejects requests to other names, so that no web page in a browser can use it.
    #[arg(long, value_name = "NAME")]
    pub(crate) host_name: Vec<String>,
}

/// Arguments of `lm judge`.
#[derive(Debug, Args)]
pub(crate) struct JudgeArguments {
    /// Answers of a model, as `lm generate --format` and AlpacaEval write them: a JSON list of `instruction`, `output`
    /// and `generator`.
    #[arg(value_name = "A.json")]
    pub(crate) a: PathBuf,

    /// Answers of another model to the same instructions.
    #[arg(value_name = "B.json")]
    pub(crate) b: PathBuf,

    /// URL of the judge's OpenAI-compatible API, such as `http://localhost:8000/v1`. Its key, if it needs one, is in
    /// the environment variable `LM_JUDGE_KEY`.
    #[arg(long, value_name = "URL")]
    pub(crate) judge: String,

    /// Name of the judge's model.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,

    /// Folder of `judgement.json` and of all verdicts.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,

    /// File of the judge's prompt, a Jinja template of `instruction`, `first` and `second`; the last line of the
    /// judge's answer must be `first`, `second` or `tie`.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,

    /// Concurrent requests to the judge, at most 1024.
    #[arg(long, value_name = "QUESTIONS", default_value = "4", value_parser = concurrency)]
    pub(crate) concurrency: NonZeroUsize,

    /// Sampling temperature of the judge.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub(crate) temperature: f64,

    /// Maximum number of tokens of the judge's answer; by default the judge's own limit.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_tokens: Option<u32>,

    /// Seed of the judge's sampling.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Time limit of an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,

    /// Number of attempts for each question.
    #[arg(long, value_name = "TIMES", default_value_t = 8)]
    pub(crate) tries: usize,
}

/// Arguments of `lm merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The model that the adapters are for: a folder, or a model of the hub as `owner/name` or `owner/name@revision`.
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) model: String,

    /// The adapters, in PEFT's layout: a folder, or a repository of the hub.
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) adapter: String,

    /// Folder of the merged model, which must be empty or absent.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,

    /// Type that the merged weights are rounded to; by default the type that the model is stored in.
    #[arg(long, value_name = "DTYPE", value_parser = dtypes())]
    pub(crate) dtype: Option<Dtype>,
}

/// Arguments of `lm export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Folder of the run: the `--out` of `lm train`.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: PathBuf,

    /// Name of the checkpoint's folder: the stage, from 0, and its number of steps; by default the newest.
    #[arg(long, value_name = "STAGE-STEP", value_parser = position)]
    pub(crate) checkpoint: Option<Position>,

    /// The new folder of the model or the adapters.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

fn position(given: &str) -> Result<Position, &'static str> {
    Position::parse(given).ok_or("expected STAGE-STEP, as 0-100")
}

/// Arguments of `lm compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// A method's results: a file `results_*.json` of the harness, or a folder of such files. The method's name is
    /// NAME, by default the name of the file or folder.
    #[arg(value_name = "[NAME=]PATH", required = true)]
    pub(crate) results: Vec<String>,

    /// Write `comparison.md`, `comparison.svg` and `comparison.json` to this folder, too.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,

    /// Print JSON, which also names the best method on average.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lm inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// A folder, or a model of the hub as `owner/name`; by default the recipe's model.
    #[arg(long, value_name = "FOLDER|ID", required_unless_present = "recipe")]
    pub(crate) model: Option<String>,

    /// A recipe whose stages' memory is estimated.
    #[arg(long, value_name = "RECIPE.toml")]
    pub(crate) recipe: Option<PathBuf>,

    /// Replace a field of the recipe, as `lm train` does.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    pub(crate) assignments: Vec<String>,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses the number of concurrent requests, each of which has a thread.
fn concurrency(given: &str) -> Result<NonZeroUsize, &'static str> {
    const MOST: usize = 1024;
    let number = given.parse().ok().filter(|number: &NonZeroUsize| number.get() <= MOST);
    number.ok_or("expected 1 to 1024")
}

/// Parses the name of a model, which must not be a number: AlpacaEval would read a column of such names as numbers.
fn generator(name: &str) -> Result<String, String> {
    let is_number = name.trim().replace('_', "").parse::<f64>().is_ok();
    if name.trim().is_empty() || is_number {
        Err("expected a name that is no number".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

fn layouts() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(Layout::VARIANTS).try_map(|name| name.parse::<Layout>())
}

fn dtypes() -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(Dtype::VARIANTS).try_map(|name| name.parse::<Dtype>())
}
