//! Recipes of runs: the declared defaults, a recipe file, and the command line, each replacing fields of the one
//! before.

mod choosing;
mod entry;

use std::path::Path;
use std::sync::LazyLock;

use objective::Configured;
use recipe::schema::names;
use recipe::{Declaration, Refusal, assign, difference, layers};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use toml::{Table, Value};
use training::{OptimizerSettings, Shape};

use crate::error::LakeError;
use crate::policy::network::Encoding;
use crate::policy::start::Start;
use crate::policy::teacher::Teacher;
use crate::solver::Target;
use crate::world::environment::{Dynamics, Rewards};

use self::choosing::Chosen;
pub use self::entry::MethodRecipe;
use self::entry::{MethodSpelling, OptimizerSpelling, name_first};

/// Name of the recipe in errors, as the owner of its fields.
const OWNER: &str = "recipe";
/// The field of the teacher, which needs a method that reads it.
const TEACHER: &str = "teacher";
/// The field of the methods.
const METHOD: &str = "method";
/// The field of the stages.
const STAGE: &str = "stage";
/// The word that stands for every registered method.
const ALL: &str = "all";
/// The field of the optimizer, and the prefix of its parameters among `--set` assignments.
const OPTIMIZER: &str = "optimizer";
/// The fields that determine the lake and the optimal policy of a measurement.
const LAKE: [&str; 7] =
    ["map", "slippery", "success_rate", "reward_schedule", "gamma", "target", "parameterised_target"];
/// Maximum number of letters in a label.
const LONGEST_LABEL: usize = 80;
/// Reserved labels, which name rows of the tables or words of the command line, with their meanings.
const RESERVED: [(&str, &str); 4] = [
    ("optimal", "the row of the optimal policy"),
    ("untrained", "the column of distances before training"),
    (ALL, "every registered method"),
    (OPTIMIZER, "the owner of the optimizer's parameters"),
];
/// Maximum seed of the first run, so that TOML can represent every run's seed.
const SEED_MAX: u64 = i64::MAX as u64 - 1_000_000;

/// The declared fields of recipes: names, help, ranges, defaults and JSON schema.
static DECLARATION: LazyLock<Declaration> = LazyLock::new(Declaration::of::<Recipe>);

/// The declared fields of recipes: names, help, ranges, defaults and JSON schema.
pub fn declaration() -> &'static Declaration {
    &DECLARATION
}

/// Everything that determines a result. Fields left out have their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = with_stages)]
pub struct Recipe {
    /// Map of the lake: one that comes with the program (see `lake maps`), a generated one
    /// (`generated:8x8,holes=0.2,seed=7`), a list of rows as Gymnasium's `desc`, or a file: lines of letters, or TOML
    /// with `rows` and `[trajectories]`.
    #[schemars(extend("default" = "4x4", "x-group" = "Lake", "x-value" = "NAME|FILE"))]
    pub map: String,
    /// Whether the lake is slippery: a move then goes the intended way with the success rate, and at right angles to it
    /// otherwise.
    #[schemars(extend("default" = false, "x-group" = "Lake"))]
    pub slippery: bool,
    /// Probability of the intended move on a slippery lake; the two moves at right angles are equally probable.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3333333333333333, "x-group" = "Lake"))]
    pub success_rate: f64,
    /// Rewards on arrival in a goal, in a hole, and on ice.
    #[schemars(inner(range(min = -1e6, max = 1e6)))]
    #[schemars(extend("default" = [1.0, 0.0, 0.0], "x-group" = "Lake", "x-value" = "GOAL,HOLE,FROZEN"))]
    pub reward_schedule: [f64; 3],
    /// Discount of the environment.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.99, "x-group" = "Lake"))]
    pub gamma: f64,
    /// Optimal policy to measure against: the first of the best actions, all best actions with equal probability, or
    /// the Boltzmann distribution over Q* at temperature 0.1.
    #[schemars(schema_with = "names::<Target>", extend("default" = "greedy", "x-group" = "Lake"))]
    pub target: Target,
    /// Whether policies are measured against a network of their own kind that is fitted to the optimal policy, instead
    /// of the optimal policy itself.
    #[schemars(extend("default" = false, "x-group" = "Training"))]
    pub parameterised_target: bool,
    /// Policy before training: `random`, fitted to T* mixed with the uniform policy (`noisy:0.5`), to T* in a share of
    /// the cells and a wrong action in the rest (`right:0.5`), or trained by another method (`after:sft`).
    #[schemars(schema_with = "start_schema")]
    #[schemars(extend("default" = "random", "x-group" = "Training", "x-value" = "START"))]
    pub start: Start,
    /// Policy that distillation learns from: Boltzmann over Q* at temperature 0.01 (`optimal`) or another one
    /// (`optimal:0.5`), or a file with a policy's table, as `lake measure` reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "teacher_schema")]
    #[schemars(extend("default" = "optimal", "x-unused" = true, "x-group" = "Training", "x-value" = "FILE|optimal"))]
    pub teacher: Option<Teacher>,
    /// Trajectory to imitate: a name that the map has (`optimal`, `hole`, ...), a word over L, D, R, U, or a random one
    /// (`drawn:shortest,seed=7`; shortest, longer, falling, any, looping or sampled; `moves=8` limits the length).
    #[schemars(extend("default" = "optimal", "x-group" = "Data", "x-value" = "NAME|WORD"))]
    pub demonstration: String,
    /// Trajectory to avoid, which methods that compare read.
    #[schemars(extend("default" = "hole", "x-group" = "Data", "x-value" = "NAME|WORD"))]
    pub rejected: String,
    /// Input of the policy for a cell: its number, or its row and its column, which it shares with other cells.
    #[schemars(schema_with = "names::<Encoding>", extend("default" = "one_hot", "x-group" = "Training"))]
    pub encoding: Encoding,
    /// Units in the policy's hidden layer.
    #[schemars(range(min = 1, max = 65_536), extend("default" = 64, "x-group" = "Training", "x-value" = "UNITS"))]
    pub hidden: usize,
    /// Maximum learning rate.
    #[schemars(range(max = 1e6))]
    #[schemars(extend("exclusiveMinimum" = 0.0, "default" = 1e-3, "x-group" = "Training"))]
    pub learning_rate: f64,
    /// Course of the learning rate after its warm-up.
    #[schemars(schema_with = "names::<Shape>", extend("default" = "constant", "x-group" = "Training"))]
    pub schedule: Shape,
    /// Share of the steps over which the learning rate rises from 0.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.0, "x-group" = "Training"))]
    pub warmup_ratio: f64,
    /// Euclidean norm that the gradient is clipped to; by default it is not clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(max = 1e6), extend("exclusiveMinimum" = 0.0, "x-group" = "Training"))]
    pub clip_norm: Option<f64>,
    /// Full-batch optimizer steps.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 300, "x-group" = "Training"))]
    pub steps: usize,
    /// Independent runs; the confidence interval is over them.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 128, "x-group" = "Training"))]
    pub seeds: usize,
    /// Seed of the first run; run i has seed + i. Equal seeds give equal bytes.
    #[schemars(range(min = 0, max = SEED_MAX))]
    #[schemars(extend("default" = 0, "x-group" = "Training", "x-value" = "SEED"))]
    pub seed: u64,
    /// Optimizer, with PyTorch's formulas and defaults.
    #[serde(serialize_with = "name_first")]
    #[schemars(schema_with = "recipe::schema::optimizer")]
    #[schemars(extend("default" = { "name": "rmsprop" }, "x-group" = "Training"))]
    pub optimizer: OptimizerSettings,
    /// Methods to train; all registered methods if the list is empty.
    #[serde(default)]
    pub method: Vec<MethodRecipe>,
}

/// Overrides from the command line.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Fields of the recipe.
    pub fields: Table,
    /// Registered names, the recipe's names or labels, or `all`; with parameters (`dpo:beta=0.05;label_smoothing=0.1`)
    /// or joined by `+`, which train one after the other. None means the recipe's list, or all.
    pub methods: Vec<String>,
    /// `field=value`, `parameter=value`, `method.parameter=value`, or a path into the recipe.
    pub assignments: Vec<String>,
}

impl Recipe {
    /// Resolves a recipe: the fields of a file replace the defaults, and those of the command line replace both.
    ///
    /// The resolved recipe spells out every method and parameter: run again, it gives the same result.
    ///
    /// # Errors
    ///
    /// [`LakeError`] naming the file, the field, what is allowed and what was given.
    pub fn resolve(file: Option<&Path>, overrides: &Overrides) -> Result<Self, LakeError> {
        let Some(path) = file else { return Self::resolve_over(Table::new(), overrides) };
        let text = std::fs::read_to_string(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
        let origin = path.display().to_string();
        let fields = layers::parse(&text).map_err(|problem| LakeError::Parse { path: origin.clone(), problem })?;
        Self::resolve_fields(Some(&origin), fields, overrides)
    }

    /// Resolves a recipe like [`resolve`](Self::resolve), with fields in place of a file.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn resolve_over(fields: Table, overrides: &Overrides) -> Result<Self, LakeError> {
        Self::resolve_fields(None, fields, overrides)
    }

    fn resolve_fields(origin: Option<&str>, fields: Table, overrides: &Overrides) -> Result<Self, LakeError> {
        let refuse = |refusal: Refusal| match origin {
            Some(origin) => LakeError::Parse { path: origin.to_owned(), problem: refusal.to_string() },
            None => LakeError::Refused(refusal.within(OWNER)),
        };
        DECLARATION.check(&fields).map_err(refuse)?;
        DECLARATION.check(&overrides.fields).map_err(|refusal| LakeError::Refused(refusal.within(OWNER)))?;
        let mut table = DECLARATION.defaults();
        DECLARATION.overlay(&mut table, fields);
        DECLARATION.overlay(&mut table, overrides.fields.clone());
        let chosen = Chosen::new(&mut table, &overrides.methods)?;
        for assignment in &overrides.assignments {
            let assignment = chosen.path(&table, assignment)?;
            let places = chosen.places(&table);
            assign(&mut table, &DECLARATION, &places, &assignment)
                .map_err(|refusal| LakeError::Parse { path: "--set".to_owned(), problem: refusal.to_string() })?;
        }
        chosen.label(&mut table)?;
        let teaches = table.contains_key(TEACHER);
        if let Some(teacher) = DECLARATION.field(TEACHER).and_then(|field| field.default.clone()) {
            table.entry(TEACHER).or_insert(teacher);
        }

        let read_error = |error: layers::ReadError| LakeError::Parse {
            path: origin.unwrap_or(OWNER).to_owned(),
            problem: error.to_string(),
        };
        let spelled = table.remove(METHOD).into_iter().map(|methods| (METHOD.to_owned(), methods)).collect();
        let Methods { method } = layers::read(spelled).map_err(read_error)?;
        if let Some(optimizer) = table.remove(OPTIMIZER) {
            let spelled = match optimizer {
                Value::Table(table) => table,
                _ => Table::new(),
            };
            let optimizer =
                OptimizerSettings::try_from(layers::read::<OptimizerSpelling>(spelled).map_err(read_error)?)?;
            table.extend(Value::try_from(optimizer).map(|optimizer| (OPTIMIZER.to_owned(), optimizer)));
        }
        let mut recipe: Self = layers::read(table).map_err(read_error)?;
        recipe.method = method.into_iter().map(MethodRecipe::try_from).collect::<Result<_, _>>()?;
        recipe.validate()?;
        if !recipe.learns_from_teacher() {
            let given = recipe.teacher.take().filter(|_| teaches);
            if let Some(given) = given {
                return Err(field(&format!("{OWNER}.{TEACHER}"), "none where no method learns from a teacher", given));
            }
        }
        Ok(recipe)
    }

    /// The fields that differ from the defaults: a recipe that resolves to this one.
    pub fn changes(&self) -> Table {
        let resolved = Table::try_from(self).unwrap_or_default();
        difference::changes(&DECLARATION, &resolved, &|_| Table::new())
    }

    /// Dynamics of the lake.
    pub fn dynamics(&self) -> Dynamics {
        let [goal, hole, frozen] = self.reward_schedule;
        let rewards = Rewards { goal, hole, frozen };
        Dynamics { slippery: self.slippery, success_rate: self.success_rate, rewards }
    }

    /// The fields that determine the lake and the optimal policy of a measurement.
    pub fn lake(&self) -> Table {
        let fields = Table::try_from(self).unwrap_or_default();
        let network: &[&str] = if self.parameterised_target { &["encoding", "hidden", "seed"] } else { &[] };
        let is_field = |name: &str| LAKE.contains(&name) || network.contains(&name);
        fields.into_iter().filter(|(name, _)| is_field(name)).collect()
    }

    /// All methods that train: the one that trains the policy before training, if any, and the stages of each method.
    pub fn trained(&self) -> impl Iterator<Item = &Configured> {
        self.start.method().into_iter().chain(self.method.iter().flat_map(MethodRecipe::stages))
    }

    /// Whether any method that trains learns from a teacher.
    fn learns_from_teacher(&self) -> bool {
        self.trained().any(|trained| trained.objective().requirements().need_teacher())
    }

    /// Checks all ranges, that methods fit the lake, and that labels are distinct.
    fn validate(&self) -> Result<(), LakeError> {
        let default = Dynamics::from(false).success_rate;
        if !self.slippery && self.success_rate != default {
            let allowed = format!("{default} where slippery = false, as no move slips");
            return Err(field(&format!("{OWNER}.success_rate"), &allowed, self.success_rate));
        }

        self.method.iter().try_for_each(|entry| entry.check(self.warmup_ratio))?;
        for (index, entry) in self.method.iter().enumerate() {
            let label = entry.label();
            if !is_label(label) {
                let allowed = format!("1 to {LONGEST_LABEL} letters, digits, -, _, + or .");
                return Err(field("method.label", &allowed, format!("\"{label}\"")));
            }
            if let Some(meaning) = taken(label) {
                return Err(field("method.label", "a label of its own", format!("\"{label}\", {meaning}")));
            }
            if entry.borrows_a_name() {
                let allowed = format!("a label that is no other method's name for {}", entry.sequence_name());
                return Err(field("method.label", &allowed, format!("\"{label}\"")));
            }
            if self.method[..index].iter().any(|earlier| earlier.label() == label) {
                return Err(field("method.label", "a different one for each entry", format!("\"{label}\" twice")));
            }
        }
        Ok(())
    }
}

fn start_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^(random|(noisy|right):[0-9.eE+-]+|after:[a-z0-9_]+)$" })
}

fn teacher_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1 })
}

/// Adapts a recipe's schema: no field is required, as each has a default, and stages may replace methods.
fn with_stages(schema: &mut Schema) {
    schema.remove("required");
    let stages = json!({
        "type": "array",
        "minItems": 1,
        "description": "Stages of one policy, in the place of [[method]]: each trains its method from the policy that the \
                        one before left.",
        "items": {
            "type": "object",
            "properties": { METHOD: { "$ref": "#/$defs/Method", "description": "Method of the stage." } },
            "required": [METHOD],
            "additionalProperties": false,
        },
    });
    if let Some(fields) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        fields.insert(STAGE.to_owned(), stages);
    }
}

/// The methods of a recipe before their parameters are checked.
#[derive(Deserialize)]
struct Methods {
    #[serde(default)]
    method: Vec<MethodSpelling>,
}

/// Whether a text is a valid label.
pub fn is_label(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
    (1..=LONGEST_LABEL).contains(&text.len()) && text.chars().all(is_word)
}

/// The meaning of a reserved label in tables or on the command line, if it is one.
pub fn taken(label: &str) -> Option<&'static str> {
    RESERVED.into_iter().find(|(name, _)| *name == label).map(|(_, meaning)| meaning)
}

fn field(field: &str, allowed: &str, given: impl std::fmt::Display) -> LakeError {
    LakeError::Field { field: field.to_owned(), allowed: allowed.to_owned(), given: given.to_string() }
}
