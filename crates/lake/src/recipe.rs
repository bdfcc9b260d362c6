//! Recipes of runs: the default recipe, a recipe file, and the command line, each replacing fields of the one before.

mod entry;

use std::ops::{Bound, RangeInclusive};
use std::path::Path;

use objective::parameter::{BELOW_ONE, Interval, POSITIVE, UNIT, check_number};
use objective::{Configured, schema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use strum::VariantNames;
use toml::Table;
use training::{OptimizerSettings, Shape};

use crate::environment::{Dynamics, Rewards};
use crate::error::LakeError;
use crate::network::Encoding;
use crate::solver::Target;
use crate::spelling::suggest;
use crate::start::{self, Start};
use crate::teacher::{self, Teacher};

pub use self::entry::MethodRecipe;
use self::entry::{OptimizerSpelling, Spelling, name_first};

/// The recipe whose fields every other one replaces.
pub const DEFAULT: &str = include_str!("../../../experiments/default.toml");
/// Name of the recipe in errors, as the owner of its fields.
const OWNER: &str = "recipe";
/// The field of the teacher, which needs a method that reads it.
const TEACHER: &str = "teacher";
/// The fields without a default.
const WITHOUT_DEFAULT: [&str; 2] = ["clip_norm", METHOD];
/// The field of the methods.
const METHOD: &str = "method";
/// The word that stands for every registered method.
const ALL: &str = "all";
/// The field of the optimizer, and the prefix of its parameters among `--set` assignments.
const OPTIMIZER: &str = "optimizer";
/// The fields that say on which lake policies are measured, and against what.
const LAKE: [&str; 7] =
    ["map", "slippery", "success_rate", "reward_schedule", "gamma", "target", "parameterised_target"];
/// Letters in a label.
const LONGEST_LABEL: usize = 40;
/// Reserved labels, which name rows of the tables or words of the command line, with their meanings.
const RESERVED: [(&str, &str); 4] = [
    ("optimal", "the row of the optimal policy"),
    ("untrained", "the column of distances before training"),
    (ALL, "every registered method"),
    (OPTIMIZER, "the owner of the optimizer's parameters"),
];

/// Everything that determines a result. Fields left out take the values of `experiments/default.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = with_defaults_and_limits)]
pub struct Recipe {
    /// A map that comes with the program, `generated:8x8,holes=0.2,seed=7`, a list of rows, or a file.
    pub map: String,
    /// Whether moves slip at right angles.
    pub slippery: bool,
    /// The probability of the intended move on a slippery lake.
    pub success_rate: f64,
    /// Rewards on arrival in a goal, in a hole, and on ice.
    #[schemars(schema_with = "reward_schedule_schema")]
    pub reward_schedule: [f64; 3],
    /// The environment's discount.
    pub gamma: f64,
    /// Optimal policy that others are compared with.
    #[schemars(schema_with = "target_schema")]
    pub target: Target,
    /// Whether the optimal policy is what the policy's own network becomes when it is fitted to T*.
    pub parameterised_target: bool,
    /// Policy before training: random, or fitted to a partly optimal policy.
    #[schemars(schema_with = "start_schema")]
    pub start: Start,
    /// The policy that distillation learns from; there where a method reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "teacher_schema")]
    pub teacher: Option<Teacher>,
    /// The trajectory to imitate: a name that the map has, `drawn:shortest,seed=7`, or a word over L, D, R, U.
    pub demonstration: String,
    /// The trajectory to avoid, read by methods that compare.
    pub rejected: String,
    /// Encoding of a cell for the policy's network.
    #[schemars(schema_with = "encoding_schema")]
    pub encoding: Encoding,
    /// Units in the policy's hidden layer.
    pub hidden: usize,
    /// The greatest learning rate.
    pub learning_rate: f64,
    /// Course of the learning rate after its warm-up.
    #[schemars(schema_with = "schedule_schema")]
    pub schedule: Shape,
    /// Share of the steps over which the learning rate rises from 0.
    pub warmup_ratio: f64,
    /// The greatest Euclidean norm of the gradient; left out, it is not clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub clip_norm: Option<f64>,
    /// Full-batch optimizer steps.
    pub steps: usize,
    /// Independent runs.
    pub seeds: usize,
    /// The first run's seed; run i takes seed + i.
    pub seed: u64,
    /// The optimizer.
    #[serde(serialize_with = "name_first")]
    #[schemars(with = "OptimizerSpelling")]
    pub optimizer: OptimizerSettings,
    /// Methods to train; all registered methods if the list is empty.
    #[serde(default)]
    pub method: Vec<MethodRecipe>,
}

/// A field's range.
struct Limit<R, V> {
    field: &'static str,
    range: R,
    value: fn(&Recipe) -> V,
}

impl Limit<RangeInclusive<u64>, u64> {
    fn fail(&self, given: impl std::fmt::Display) -> LakeError {
        let allowed = format!("{} to {}", self.range.start(), self.range.end());
        field(&format!("{OWNER}.{}", self.field), &allowed, given)
    }
}

/// Interval −10⁶ ≤ x ≤ 10⁶.
const REWARD: Interval = (Bound::Included(-1e6), Bound::Included(1e6));

/// The only place of the ranges of numbers.
const NUMBERS: &[Limit<Interval, Option<f64>>] = &[
    Limit { field: "gamma", range: BELOW_ONE, value: |recipe| Some(recipe.gamma) },
    Limit { field: "learning_rate", range: POSITIVE, value: |recipe| Some(recipe.learning_rate) },
    Limit { field: "success_rate", range: UNIT, value: |recipe| Some(recipe.success_rate) },
    Limit { field: "reward_schedule", range: REWARD, value: |recipe| Some(recipe.reward_schedule[0]) },
    Limit { field: "reward_schedule", range: REWARD, value: |recipe| Some(recipe.reward_schedule[1]) },
    Limit { field: "reward_schedule", range: REWARD, value: |recipe| Some(recipe.reward_schedule[2]) },
    Limit { field: "warmup_ratio", range: UNIT, value: |recipe| Some(recipe.warmup_ratio) },
    Limit { field: "clip_norm", range: POSITIVE, value: |recipe| recipe.clip_norm },
];

/// The only place of the ranges of counts.
const COUNTS: &[Limit<RangeInclusive<u64>, u64>] = &[
    Limit { field: "hidden", range: 1..=65_536, value: |recipe| recipe.hidden as u64 },
    Limit { field: "steps", range: 1..=10_000_000, value: |recipe| recipe.steps as u64 },
    Limit { field: "seeds", range: 1..=1_000_000, value: |recipe| recipe.seeds as u64 },
    // Every run's seed is one that TOML can hold.
    Limit { field: "seed", range: 0..=i64::MAX as u64 - 1_000_000, value: |recipe| recipe.seed },
];

/// Overrides from the command line.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Fields of the recipe.
    pub fields: Table,
    /// Registered names, the recipe's names or labels, `all`, or names joined by `+`, which train one behind the other;
    /// none means the recipe's list, or all.
    pub methods: Vec<String>,
    /// `parameter=value`, `method.parameter=value` or `optimizer.parameter=value`.
    pub assignments: Vec<String>,
}

impl Recipe {
    /// The default recipe, its fields replaced by those of a file, and these by the command line's.
    ///
    /// The resolved recipe spells out every method and parameter: run again, it gives the same result.
    ///
    /// # Errors
    ///
    /// [`LakeError`] naming the file, the field, what is allowed and what was given.
    pub fn resolve(file: Option<&Path>, overrides: &Overrides) -> Result<Self, LakeError> {
        let mut fields = Table::new();
        let mut origin = "recipe".to_owned();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
            origin = path.display().to_string();
            fields = parse(&origin, &text)?;
        }
        Self::resolve_fields(&origin, fields, overrides)
    }

    /// The same with fields in the place of a file's.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn resolve_over(fields: Table, overrides: &Overrides) -> Result<Self, LakeError> {
        Self::resolve_fields("recipe", fields, overrides)
    }

    fn resolve_fields(origin: &str, fields: Table, overrides: &Overrides) -> Result<Self, LakeError> {
        let mut table = parse("default recipe", DEFAULT)?;
        let names: Vec<_> = table.keys().cloned().chain(WITHOUT_DEFAULT.map(str::to_owned)).collect();
        let teaches = fields.contains_key(TEACHER) || overrides.fields.contains_key(TEACHER);
        table.extend(fields);
        table.extend(overrides.fields.clone());
        let unknown = table.keys().find(|name| !names.contains(name)).cloned();
        let spelled = [OPTIMIZER, METHOD].map(|name| table.remove_entry(name));
        let mut spelling: Spelling = read(origin, spelled.into_iter().flatten().collect())?;
        spelling.select(&overrides.methods)?;
        for assignment in &overrides.assignments {
            spelling.assign(assignment)?;
        }
        let Spelling { optimizer, method } = spelling;
        let optimizer = toml::Value::try_from(OptimizerSettings::try_from(optimizer)?);
        table.extend(optimizer.map(|optimizer| (OPTIMIZER.to_owned(), optimizer)));
        let mut recipe: Self = read(origin, table).map_err(|error| {
            suggest(error, unknown.as_deref().unwrap_or_default(), names.iter().map(String::as_str))
        })?;
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

    /// Dynamics of the lake.
    pub fn dynamics(&self) -> Dynamics {
        let [goal, hole, frozen] = self.reward_schedule;
        let rewards = Rewards { goal, hole, frozen };
        Dynamics { slippery: self.slippery, success_rate: self.success_rate, rewards }
    }

    /// The fields that say on which lake policies are measured, and against what.
    pub fn lake(&self) -> Table {
        let fields = Table::try_from(self).unwrap_or_default();
        let network: &[&str] = if self.parameterised_target { &["encoding", "hidden", "seed"] } else { &[] };
        let is_asked = |name: &str| LAKE.contains(&name) || network.contains(&name);
        fields.into_iter().filter(|(name, _)| is_asked(name)).collect()
    }

    /// Everything that trains: what does before the methods, and the stages of each.
    pub fn trained(&self) -> impl Iterator<Item = &Configured> {
        self.start.method().into_iter().chain(self.method.iter().flat_map(MethodRecipe::stages))
    }

    /// Whether anything that trains learns from a teacher.
    fn learns_from_teacher(&self) -> bool {
        self.trained().any(|trained| trained.objective().requirements().need_teacher())
    }

    /// Checks every range, and that methods fit the lake and labels tell them apart.
    fn validate(&self) -> Result<(), LakeError> {
        for limit in NUMBERS {
            if let Some(value) = (limit.value)(self) {
                check_number(OWNER, limit.field, limit.range, value)?;
            }
        }
        for limit in COUNTS {
            let value = (limit.value)(self);
            if !limit.range.contains(&value) {
                return Err(limit.fail(value));
            }
        }
        let default = Dynamics::from(false).success_rate;
        if !self.slippery && self.success_rate != default {
            let allowed = format!("{default} where slippery = false, as no move slips");
            return Err(field(&format!("{OWNER}.success_rate"), &allowed, self.success_rate));
        }

        self.method.iter().try_for_each(|entry| entry.check(self.warmup_ratio))?;
        for (index, entry) in self.method.iter().enumerate() {
            let label = entry.label();
            if !is_label(label) {
                let allowed = format!("1 to {LONGEST_LABEL} letters, digits, -, _ or +");
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

fn target_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": Target::VARIANTS })
}

fn start_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^(random|(noisy|right):[0-9.eE+-]+|after:[a-z0-9_]+)$", "description": start::SPELLING })
}

fn teacher_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "description": teacher::SPELLING })
}

fn encoding_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": Encoding::VARIANTS })
}

fn reward_schedule_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": schema::number(REWARD), "minItems": 3, "maxItems": 3 })
}

fn schedule_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": Shape::VARIANTS })
}

/// A recipe needs no field, as each has a default.
fn with_defaults_and_limits(schema: &mut Schema) {
    schema.remove("required");
    let Some(fields) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) else { return };
    let defaults = parse("default recipe", DEFAULT).unwrap_or_default();
    for (name, field) in fields {
        let Some(field) = field.as_object_mut() else { continue };
        let is_number = !field.contains_key("items");
        if let Some(limit) = NUMBERS.iter().find(|limit| limit.field == name && is_number) {
            field.extend(schema::number(limit.range).as_object().cloned().unwrap_or_default());
        }
        if let Some(Limit { range, .. }) = COUNTS.iter().find(|limit| limit.field == name) {
            field.remove("format");
            field.extend([
                ("minimum".to_owned(), (*range.start()).into()),
                ("maximum".to_owned(), (*range.end()).into()),
            ]);
        }
        if let Some(default) = defaults.get(name).filter(|default| !default.is_table()) {
            field.insert("default".to_owned(), serde_json::to_value(default).unwrap_or_default());
        }
    }
}

/// Whether a result may be called so.
pub fn is_label(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
    (1..=LONGEST_LABEL).contains(&text.len()) && text.chars().all(is_word)
}

/// The meaning of a reserved label in tables or on the command line, if it is one.
pub fn taken(label: &str) -> Option<&'static str> {
    RESERVED.into_iter().find(|(name, _)| *name == label).map(|(_, meaning)| meaning)
}

/// A count, such as seeds or steps, parsed from text and checked against its field's range.
///
/// # Errors
///
/// [`LakeError::Field`] naming the field, its range and the text.
pub fn count(name: &'static str, text: &str) -> Result<i64, LakeError> {
    let Some(limit) = COUNTS.iter().find(|limit| limit.field == name) else {
        return Err(field(name, "a field whose value is a count", text));
    };
    let number = text.parse::<u64>().ok().filter(|number| limit.range.contains(number));
    number.and_then(|number| i64::try_from(number).ok()).ok_or_else(|| limit.fail(text))
}

/// Whether a recipe has a field of this name.
#[cfg(feature = "program")]
pub(crate) fn is_field(name: &str) -> bool {
    WITHOUT_DEFAULT.contains(&name) || parse("default recipe", DEFAULT).is_ok_and(|fields| fields.contains_key(name))
}

fn parse(origin: &str, text: &str) -> Result<Table, LakeError> {
    text.parse()
        .map_err(|error: toml::de::Error| LakeError::Parse { path: origin.to_owned(), problem: error.to_string() })
}

/// Fields as a type, with the path to a field of another one in the error.
fn read<T: DeserializeOwned>(origin: &str, table: Table) -> Result<T, LakeError> {
    serde_path_to_error::deserialize(toml::Value::Table(table))
        .map_err(|error| LakeError::Parse { path: origin.to_owned(), problem: error.to_string() })
}

fn field(field: &str, allowed: &str, given: impl std::fmt::Display) -> LakeError {
    LakeError::Field { field: field.to_owned(), allowed: allowed.to_owned(), given: given.to_string() }
}
