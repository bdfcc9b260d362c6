//! A study: the same methods in many designs. A design is a recipe whose fields are sampled from declared levels.
//!
//! | to find | look in |
//! |---|---|
//! | what a study declares, and its designs | here |
//! | running a design, and what is read of its runs | `reading` |
//! | results of a part of the designs, on disk | `shard`, `table` |
//! | what the results say | `analysis`, `report` |
//! | tables and figures of that | `summary` |
//!
//! Designs are a simple random sample of the declared space: design n draws a level of every factor from stream n of
//! the study's seed. So a share over designs estimates the share over the space, any subset of levels is itself such a
//! sample, and no design depends on which others are run, where, or in what order.

pub mod analysis;
pub mod reading;
pub mod report;
pub mod shard;
pub mod summary;
mod table;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::LazyLock;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use recipe::{Declaration, assign, layers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::LakeError;
use crate::experiment::recipe::{self as recipes, Overrides, Recipe};
use crate::experiment::{Experiment, curve_steps};

/// Placeholder for a number that differs in each design: `generated:5x5,seed={draw}`.
const DRAW: &str = "{draw}";
/// Maximum number of attempts until a design's lake has the trajectories that it names.
const PATIENCE: usize = 1000;
/// Fields that are the same in all designs.
const SHARED: [&str; 4] = ["method", "seed", "seeds", "steps"];
/// Maximum number of designs.
const MOST_DESIGNS: usize = 1_000_000;
/// Name of the untrained policies among the methods.
pub const UNTRAINED: &str = "untrained";
/// Name of the factor whose levels are the updates after which a policy is measured.
pub const STOP: &str = "stop";
/// Name of the factor whose levels are the distances.
pub const DISTANCE: &str = "distance";

/// Name of a study in errors, as the owner of its fields.
const OWNER: &str = "study";

/// The declared fields of studies.
static DECLARATION: LazyLock<Declaration> = LazyLock::new(Declaration::of::<Study>);

/// The declared fields of studies: names, help, ranges and JSON schema.
pub fn declaration() -> &'static Declaration {
    &DECLARATION
}

/// Contents of a study file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Number of designs sampled from the space.
    #[schemars(range(min = 1, max = MOST_DESIGNS))]
    pub designs: usize,
    /// Seed of the designs.
    #[schemars(range(max = i64::MAX))]
    pub seed: u64,
    /// Numbers of updates after which policies are measured: points of the curve.
    pub stops: Vec<usize>,
    /// Claimed order, smallest distance first: labels of methods.
    pub order: Vec<String>,
    /// Fields of every design's recipe; `seeds` is the number of seeds per design, each design with its own.
    #[serde(default)]
    #[schemars(with = "Recipe")]
    pub recipe: Table,
    /// The space that designs are sampled from: factors with their levels. A factor is a recipe's field (`slippery`), a
    /// method's parameter (`dpo.beta`), or any name for named levels.
    pub factor: BTreeMap<String, Levels>,
    /// Further claims to examine.
    #[serde(default)]
    pub question: Vec<Question>,
}

/// A factor's levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Levels {
    /// Values of the field or parameter.
    Values(#[schemars(with = "Vec<serde_json::Value>")] Vec<Value>),
    /// Fields that each named level sets; `set` lists assignments of parameters.
    Named(#[schemars(with = "BTreeMap<String, BTreeMap<String, serde_json::Value>>")] BTreeMap<String, Table>),
}

/// A claim that is compared with the results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The claim in words.
    pub claim: String,
    /// The claim as an order of methods, smallest distance first.
    pub order: Vec<String>,
    /// Designs and readings that the claim is about: levels of factors.
    #[serde(default, rename = "where")]
    pub subset: BTreeMap<String, Selected>,
    /// Factor whose levels split the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// One level, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Selected {
    /// A single level.
    One(String),
    /// Any of several levels.
    Any(Vec<String>),
}

/// A design: a recipe, and the level of each factor that determined it.
#[derive(Debug)]
pub struct Design {
    /// Number of the design in the study.
    pub number: usize,
    /// Level of each factor, in the factors' order.
    pub levels: Vec<String>,
    /// Experiment that is ready to run.
    pub experiment: Experiment,
}

impl Study {
    /// Loads a study from a file.
    ///
    /// # Errors
    ///
    /// [`LakeError`] naming the file, the field, what is allowed and what was given; every level of every factor has
    /// then been tried by itself.
    pub fn load(path: &Path, designs: Option<usize>, assignments: &[String]) -> Result<Self, LakeError> {
        let text = std::fs::read_to_string(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
        let parse = |problem: String| LakeError::Parse { path: path.display().to_string(), problem };
        let mut table = layers::parse(&text).map_err(parse)?;
        for assignment in assignments {
            assign(&mut table, &DECLARATION, &[], assignment)
                .map_err(|refusal| LakeError::Parse { path: "--set".to_owned(), problem: refusal.to_string() })?;
        }
        DECLARATION.check(&table).map_err(|refusal| parse(refusal.within(OWNER).to_string()))?;
        let mut study: Self = layers::read(table).map_err(|error| parse(error.to_string()))?;
        study.designs = designs.unwrap_or(study.designs);
        study.validate()?;
        Ok(study)
    }

    /// Whether two studies have the same results, which depend on everything except claims.
    pub fn has_results_of(&self, other: &Self) -> bool {
        let Self { designs, seed, stops, order: _, recipe, factor, question: _ } = self;
        (designs, seed, stops, recipe, factor)
            == (&other.designs, &other.seed, &other.stops, &other.recipe, &other.factor)
    }

    /// Names of the factors, in their order.
    pub fn factors(&self) -> impl Iterator<Item = &str> {
        self.factor.keys().map(String::as_str)
    }

    /// Makes the design with this number.
    ///
    /// Where the lake does not have a trajectory that others have, all levels are drawn again.
    ///
    /// # Errors
    ///
    /// [`LakeError`] of levels that do not go together, naming the design.
    pub fn design(&self, number: usize) -> Result<Design, LakeError> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number as u64);
        let mut left = PATIENCE;
        loop {
            let (mut overrides, mut levels) = (Overrides::default(), Vec::new());
            for (factor, of) in &self.factor {
                let level = rng.random_range(0..of.len());
                levels.push(of.name(level));
                of.apply(level, factor, &mut overrides);
            }
            for value in overrides.fields.iter_mut().map(|(_, value)| value) {
                number_draws(value, &mut rng);
            }
            left -= 1;
            match self.experiment(number, &overrides) {
                Err(LakeError::NoTrajectory { .. }) if left > 0 => {}
                Err(source) => return Err(LakeError::Design { number, source: Box::new(source) }),
                Ok(experiment) => return Ok(Design { number, levels, experiment }),
            }
        }
    }

    /// The recipe whose fields each design replaces.
    ///
    /// # Errors
    ///
    /// [`LakeError`] as [`Recipe::resolve_over`].
    pub fn base(&self) -> Result<Recipe, LakeError> {
        Recipe::resolve_over(self.recipe.clone(), &Overrides::default())
    }

    fn experiment(&self, number: usize, overrides: &Overrides) -> Result<Experiment, LakeError> {
        let mut recipe = Recipe::resolve_over(self.recipe.clone(), overrides)?;
        recipe.seed += (number * recipe.seeds) as u64;
        Experiment::drawn(recipe)
    }

    fn validate(&self) -> Result<(), LakeError> {
        let base = self.base()?;
        self.validate_scale(&base)?;
        let labels: Vec<_> = base.method.iter().map(|entry| entry.label()).chain([UNTRAINED]).collect();
        known("order", &self.order, &labels)?;
        for question in &self.question {
            known("question.order", &question.order, &labels)?;
            self.validate_subset(question)?;
        }
        for (factor, levels) in &self.factor {
            self.validate_factor(factor, levels)?;
        }
        let columns = table::names(self);
        match columns.iter().enumerate().find(|(place, name)| columns[..*place].contains(name)) {
            Some((_, name)) => Err(fail("factor", "names that no column of the results has", format!("\"{name}\""))),
            None => Ok(()),
        }
    }

    fn validate_scale(&self, base: &Recipe) -> Result<(), LakeError> {
        if !(1..=MOST_DESIGNS).contains(&self.designs) {
            return Err(fail("designs", &format!("1 to {MOST_DESIGNS}"), self.designs));
        }
        if base.seeds < 2 {
            return Err(fail("recipe.seeds", "at least 2, for intervals", base.seeds));
        }
        if self.recipe.get("method").is_none() {
            return Err(fail("recipe.method", "a list of the methods to compare", "none"));
        }
        let points = curve_steps(base.steps);
        if let Some(stop) = self.stops.iter().find(|stop| **stop == 0 || !points.contains(stop)) {
            let points: Vec<_> = points[1..].iter().map(usize::to_string).collect();
            return Err(fail("stops", &format!("some of {}", points.join(", ")), stop));
        }
        if self.stops.is_empty() || !self.stops.is_sorted_by(|a, b| a < b) {
            let given = self.stops.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            let given = if given.is_empty() { "none".to_owned() } else { given };
            return Err(fail("stops", "at least one, each greater than the one before", given));
        }
        Ok(())
    }

    /// Levels of every factor that can group results.
    fn levels(&self) -> BTreeMap<&str, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut levels: BTreeMap<_, _> = self.factor.iter().map(|(name, of)| (name.as_str(), of.names())).collect();
        levels.extend(reading::ATTRIBUTES.into_iter().zip(reading::ATTRIBUTE_LEVELS.map(owned)));
        levels.insert(STOP, reading::stops(&self.stops).split_off(1));
        levels.insert(DISTANCE, owned(&reading::DISTANCES));
        levels
    }

    fn validate_subset(&self, question: &Question) -> Result<(), LakeError> {
        let levels = self.levels();
        let of = |factor: &String| {
            let names: Vec<_> = levels.keys().copied().collect();
            let allowed = format!("one of {}", names.join(", "));
            levels.get(factor.as_str()).ok_or_else(|| fail("question: a factor", &allowed, format!("\"{factor}\"")))
        };
        question.by.iter().try_for_each(|factor| of(factor).map(|_| ()))?;
        for (factor, selected) in &question.subset {
            let levels = of(factor)?;
            if let Some(level) = selected.levels().iter().find(|level| !levels.contains(level)) {
                let allowed = format!("one of {}", levels.join(", "));
                return Err(fail(&format!("question.where.{factor}"), &allowed, format!("\"{level}\"")));
            }
        }
        Ok(())
    }

    fn validate_factor(&self, factor: &str, levels: &Levels) -> Result<(), LakeError> {
        let field = format!("factor.{factor}");
        if !factor.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c)) {
            return Err(fail(&field, "a name of letters, digits, _ and .", format!("\"{factor}\"")));
        }
        let names = levels.names();
        if names.is_empty() {
            return Err(fail(&field, "at least one level", "none"));
        }
        if let Some((_, twice)) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
            return Err(fail(&field, "different levels", format!("\"{twice}\" twice")));
        }
        for (level, name) in names.into_iter().enumerate() {
            let mut overrides = Overrides::default();
            levels.apply(level, factor, &mut overrides);
            let wrong =
                |field: &&String| recipes::declaration().field(field).is_none() || SHARED.contains(&field.as_str());
            if let Some(wrong) = overrides.fields.keys().find(wrong) {
                let allowed = format!("fields of recipes but {}, or method.parameter", SHARED.join(", "));
                return Err(fail(&field, &allowed, format!("\"{wrong}\"")));
            }
            let fail = |source| LakeError::Level { factor: factor.to_owned(), level: name, source: Box::new(source) };
            Recipe::resolve_over(self.recipe.clone(), &overrides).map_err(fail)?;
        }
        Ok(())
    }
}

fn fail(field: &str, allowed: &str, given: impl Display) -> LakeError {
    LakeError::Field { field: format!("{OWNER}.{field}"), allowed: allowed.to_owned(), given: given.to_string() }
}

/// Checks that an order names at least two methods, all of which exist.
fn known(field: &str, order: &[String], labels: &[&str]) -> Result<(), LakeError> {
    match order.iter().find(|label| !labels.contains(&label.as_str())) {
        Some(label) => Err(fail(field, &format!("labels among {}", labels.join(", ")), format!("\"{label}\""))),
        None if order.len() < 2 => {
            let given = order.first().map_or("none".to_owned(), |only| format!("only \"{only}\""));
            Err(fail(field, "at least two methods", given))
        }
        None => Ok(()),
    }
}

impl Levels {
    fn len(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Named(named) => named.len(),
        }
    }

    /// Name of a level: the value itself if it has no name.
    fn name(&self, level: usize) -> String {
        match self {
            Self::Values(values) => text(&values[level]),
            Self::Named(named) => named.keys().nth(level).cloned().unwrap_or_default(),
        }
    }

    fn names(&self) -> Vec<String> {
        (0..self.len()).map(|level| self.name(level)).collect()
    }

    fn apply(&self, level: usize, factor: &str, overrides: &mut Overrides) {
        match self {
            Self::Values(_) if factor.contains('.') => {
                overrides.assignments.push(format!("{factor}={}", self.name(level)));
            }
            Self::Values(values) => {
                overrides.fields.insert(factor.to_owned(), values[level].clone());
            }
            Self::Named(named) => {
                for (field, value) in named.values().nth(level).into_iter().flatten() {
                    match value {
                        Value::Array(assignments) if field == "set" => {
                            overrides.assignments.extend(assignments.iter().map(text));
                        }
                        value => {
                            overrides.fields.insert(field.clone(), value.clone());
                        }
                    }
                }
            }
        }
    }
}

impl Selected {
    /// Names of the levels.
    pub fn levels(&self) -> &[String] {
        match self {
            Self::One(level) => std::slice::from_ref(level),
            Self::Any(levels) => levels,
        }
    }
}

/// Text of a value, without quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Replaces each `{draw}` by a random number.
fn number_draws(value: &mut Value, rng: &mut ChaCha8Rng) {
    match value {
        Value::String(text) => {
            while text.contains(DRAW) {
                *text = text.replacen(DRAW, &rng.random::<u32>().to_string(), 1);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| number_draws(value, rng)),
        _ => {}
    }
}
