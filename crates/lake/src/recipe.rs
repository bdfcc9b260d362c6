//! What to run: the default recipe, a recipe file, and the command line, each replacing fields of the one before.

use std::borrow::Cow;
use std::ops::{Bound, RangeInclusive};
use std::path::Path;

use objective::parameter::{BELOW_ONE, Interval, POSITIVE, Parameters, UNIT, Value, check_number};
use objective::{
    Anticipation, Configured, Constant, METHODS, Objective, Requirements, Source, Statistic, registry, schema,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strum::VariantNames;
use toml::Table;
use training::optimizer::OptimizerKind;
use training::{OPTIMIZERS, OptimizerSettings, Shape};

use crate::environment::{Dynamics, Rewards};
use crate::error::LakeError;
use crate::network::Encoding;
use crate::solver::Target;
use crate::spelling::suggest;
use crate::start::{self, Start};
use crate::teacher::{self, Teacher};

/// The recipe whose fields every other one replaces.
pub const DEFAULT: &str = include_str!("../../../experiments/default.toml");
/// Name of the recipe in errors, as the owner of its fields.
const OWNER: &str = "recipe";
/// The field of the teacher, which needs a method that reads it.
const TEACHER: &str = "teacher";
/// The fields without a default.
const WITHOUT_DEFAULT: [&str; 2] = ["clip_norm", "method"];
/// The word that stands for every registered method.
const ALL: &str = "all";
/// The prefix of the optimizer's parameters among `--set` assignments.
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
    /// What counts as the optimal policy.
    #[schemars(schema_with = "target_schema")]
    pub target: Target,
    /// Whether the optimal policy is what the policy's own network becomes when it is fitted to T*.
    pub parameterised_target: bool,
    /// What the policy is before training: random, or fitted to a policy that is partly right.
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
    /// What the policy's network reads of a cell.
    #[schemars(schema_with = "encoding_schema")]
    pub encoding: Encoding,
    /// Units in the policy's hidden layer.
    pub hidden: usize,
    /// The greatest learning rate.
    pub learning_rate: f64,
    /// How the learning rate goes on after its warm-up.
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
    pub optimizer: OptimizerRecipe,
    /// What is trained; every registered method where none is listed.
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

/// −10⁶ ≤ x ≤ 10⁶.
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

/// An optimizer by name, with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerRecipe {
    /// The name.
    pub name: String,
    /// Parameters; those left out take their defaults.
    #[serde(flatten)]
    pub parameters: Parameters,
}

/// A method by name, with its parameters, and a label where a recipe lists it more than once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodRecipe {
    /// The registered name.
    pub name: String,
    /// What the result is called; the name where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Methods that train before it, one behind the other and each for as many steps, with their names and parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Parameters>,
    /// Parameters; those left out take their defaults.
    #[serde(flatten)]
    pub parameters: Parameters,
}

/// What a command line says beside a recipe file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Fields of the recipe.
    pub fields: Table,
    /// Registered names, the recipe's names or labels, `all`, or names joined by `+`, which train one behind the other; none
    /// means the recipe's list, or all.
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
        let mut recipe: Self = serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
            let error = LakeError::Parse { path: origin.to_owned(), problem: error.to_string() };
            suggest(error, unknown.as_deref().unwrap_or_default(), names.iter().map(String::as_str))
        })?;
        recipe.select(&overrides.methods)?;
        for assignment in &overrides.assignments {
            recipe.assign(assignment)?;
        }
        recipe.validate()?;
        if !recipe.learns_from_teacher()? {
            let given = recipe.teacher.take().filter(|_| teaches);
            if let Some(given) = given {
                return Err(field(&format!("{OWNER}.{TEACHER}"), "none where no method learns from a teacher", given));
            }
        }
        Ok(recipe)
    }

    /// How the lake answers moves.
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

    /// The objectives of each entry of `method`, in the order in which they train; the last is the entry's own.
    ///
    /// # Errors
    ///
    /// [`LakeError::Registry`] for an unknown method or parameter.
    pub fn objectives(&self) -> Result<Vec<Vec<Box<dyn Objective>>>, LakeError> {
        let stages = |method: &MethodRecipe| {
            let before = method.after.iter().map(|stage| Ok(Configured::try_from(stage.clone())?.into_objective()));
            let own = registry::build(&method.name, &method.parameters).map_err(LakeError::from);
            before.chain([own]).collect()
        };
        self.method.iter().map(stages).collect()
    }

    /// Whether anything that trains learns from a teacher.
    fn learns_from_teacher(&self) -> Result<bool, LakeError> {
        let needs = |objective: &dyn Objective| objective.requirements().need_teacher();
        let before = match &self.start {
            Start::After { method } => needs(&*registry::build(method, &Parameters::new())?),
            Start::Random | Start::Noisy { .. } | Start::Right { .. } => false,
        };
        Ok(before || self.objectives()?.iter().flatten().any(|objective| needs(&**objective)))
    }

    /// The optimizer.
    ///
    /// # Errors
    ///
    /// [`LakeError::Optimizer`] for an unknown optimizer or parameter.
    pub fn optimizer(&self) -> Result<OptimizerSettings, LakeError> {
        Ok(OptimizerSettings::build(&self.optimizer.name, &self.optimizer.parameters)?)
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), LakeError> {
        let every = || METHODS.iter().map(|method| method.name.to_owned());
        let names: Vec<_> = match wanted {
            [] if !self.method.is_empty() => return Ok(()),
            [] => every().collect(),
            names => names
                .iter()
                .map(|name| name.trim())
                .flat_map(|name| if name == ALL { every().collect() } else { vec![name.to_owned()] })
                .collect(),
        };
        let mut chosen = Vec::new();
        for name in names {
            let listed: Vec<_> = self.method.iter().filter(|entry| entry.answers_to(&name)).cloned().collect();
            if listed.is_empty() {
                chosen.push(MethodRecipe::sequence(&name)?);
            }
            chosen.extend(listed);
        }
        self.method = chosen;
        Ok(())
    }

    fn assign(&mut self, assignment: &str) -> Result<(), LakeError> {
        let fail = |allowed: &str, given: &str| field("--set", allowed, given);
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(fail("method.parameter=value", &format!("\"{assignment}\"")));
        };
        let Ok(value) = value.trim().parse::<Value>();
        let (owner, parameter) = match key.trim().rsplit_once('.') {
            Some((owner, parameter)) => (Some(owner), parameter),
            None => (None, key.trim()),
        };
        if owner == Some(OPTIMIZER) {
            self.optimizer.parameters.insert(parameter.to_owned(), value);
            return Ok(());
        }
        let labels: Vec<_> = self.method.iter().map(|entry| entry.label().to_owned()).collect();
        let mut entries: Vec<_> = match owner {
            Some(owner) => self.method.iter_mut().filter(|entry| entry.answers_to(owner)).collect(),
            None => self.method.iter_mut().collect(),
        };
        match (owner, entries.len()) {
            (Some(owner), 0) => {
                let error = fail(&format!("{OPTIMIZER} or a chosen method before the dot: {}", labels.join(", ")), key);
                Err(suggest(error, owner, labels.iter().map(String::as_str).chain([OPTIMIZER])))
            }
            (None, 2..) => {
                Err(fail(&format!("method.parameter=value where {} methods are chosen", labels.len()), assignment))
            }
            _ => {
                for entry in &mut entries {
                    entry.parameters.insert(parameter.to_owned(), value.clone());
                }
                Ok(())
            }
        }
    }

    /// Checks every range once and replaces parameters by those in force.
    fn validate(&mut self) -> Result<(), LakeError> {
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

        self.optimizer.parameters = self.optimizer()?.parameters();
        let objectives = self.objectives()?;
        for (stages, entry) in objectives.iter().zip(&mut self.method) {
            let before = entry.after.iter().map(|stage| Ok(Parameters::from(&Configured::try_from(stage.clone())?)));
            entry.after = before.collect::<Result<_, LakeError>>()?;
            for objective in stages {
                let requirements = objective.requirements();
                check_data(entry.label(), &requirements)?;
                entry.parameters = objective.parameters();
                if let Anticipation::Residual { lambda, .. } = requirements.anticipation
                    && lambda.least != lambda.most
                    && self.warmup_ratio == 0.0
                {
                    let lambda_min = format!("{}.lambda_min", entry.label());
                    let allowed = "lambda itself where warmup_ratio = 0, as it rises in the warm-up";
                    return Err(field(&lambda_min, allowed, lambda.least));
                }
            }
        }
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

/// Refuses a method whose data a lake does not have.
fn check_data(label: &str, requirements: &Requirements) -> Result<(), LakeError> {
    let scores = requirements.statistics.contains(Statistic::Score).then_some(Statistic::Score.name());
    let given = requirements.source == Source::Given && requirements.constants.contains(Constant::Advantage);
    match scores.or(given.then_some(Constant::Advantage.name())) {
        None => Ok(()),
        Some(column) => {
            Err(field("method", &format!("one that does not read {column}, which a lake does not have"), label))
        }
    }
}

impl JsonSchema for OptimizerRecipe {
    fn schema_name() -> Cow<'static, str> {
        "Optimizer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let described =
            |kind: &OptimizerKind| schema::table(generator, kind.name, kind.summary, &(kind.parameters)(), &[]);
        json_schema!({ "oneOf": OPTIMIZERS.iter().map(described).collect::<Vec<_>>() })
    }
}

impl JsonSchema for MethodRecipe {
    fn schema_name() -> Cow<'static, str> {
        "Entry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let label = json_schema!({
            "type": "string",
            "pattern": format!("^[A-Za-z0-9_+-]{{1,{LONGEST_LABEL}}}$"),
            "description": "what the result is called; by default the name",
        });
        let after = json_schema!({
            "type": "array",
            "items": generator.subschema_for::<Configured>(),
            "description": "methods that train before it, one behind the other and each for as many steps",
        });
        schema::methods(generator, &[("label", label.to_value()), ("after", after.to_value())])
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

impl MethodRecipe {
    /// Methods joined by `+`, at their defaults.
    ///
    /// # Errors
    ///
    /// [`LakeError::Registry`] for an unknown method.
    fn sequence(names: &str) -> Result<Self, LakeError> {
        let (before, own) = names.rsplit_once('+').map_or((None, names), |(before, own)| (Some(before), own));
        let named = |name: &str| {
            registry::find(name)?;
            Ok(Parameters::from([("name".to_owned(), name.into())]))
        };
        let after = before.into_iter().flat_map(|before| before.split('+')).map(named);
        let after = after.collect::<Result<Vec<_>, LakeError>>()?;
        let name = registry::find(own)?.name.to_owned();
        Ok(Self { name, label: before.map(|_| names.to_owned()), after, parameters: Parameters::new() })
    }

    /// What the result is called.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    /// The names of its methods, joined by `+`.
    fn sequence_name(&self) -> String {
        let name = |stage: &Parameters| match stage.get("name") {
            Some(Value::Text(name)) => name.clone(),
            _ => String::new(),
        };
        let before = self.after.iter().map(name);
        before.chain([self.name.clone()]).collect::<Vec<_>>().join("+")
    }

    /// Whether its label is the name of another method, or of other methods in sequence.
    fn borrows_a_name(&self) -> bool {
        let Some(label) = &self.label else { return false };
        let is_name = label.split('+').all(|name| registry::find(name).is_ok());
        is_name && *label != self.name && *label != self.sequence_name()
    }

    fn answers_to(&self, name: &str) -> bool {
        self.label() == name || self.name == name
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

fn field(field: &str, allowed: &str, given: impl std::fmt::Display) -> LakeError {
    LakeError::Field { field: field.to_owned(), allowed: allowed.to_owned(), given: given.to_string() }
}
