//! What to run: the default recipe, a recipe file, and the command line, each replacing fields of the one before.

use std::path::Path;

use objective::ift::LAMBDA_MIN;
use objective::parameter::{BELOW_ONE, POSITIVE, Parameters, UNIT, Value, check_number};
use objective::{Anticipation, METHODS, Objective, registry};
use serde::{Deserialize, Serialize};
use toml::Table;
use training::{OptimizerSettings, Shape};

use crate::error::LakeError;
use crate::solver::Target;

/// The recipe whose fields every other one replaces.
pub const DEFAULT: &str = include_str!("../../../experiments/default.toml");
/// The word that stands for every registered method.
const ALL: &str = "all";
/// The prefix of the optimizer's parameters among `--set` assignments.
const OPTIMIZER: &str = "optimizer";

/// Everything that determines a result; the fields are documented in `experiments/default.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Recipe {
    pub map: String,
    pub slippery: bool,
    pub gamma: f64,
    pub target: Target,
    pub demonstration: String,
    pub rejected: String,
    pub hidden: usize,
    pub learning_rate: f64,
    pub schedule: Shape,
    pub warmup_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    pub steps: usize,
    pub seeds: usize,
    pub seed: u64,
    pub optimizer: OptimizerRecipe,
    #[serde(default)]
    pub method: Vec<MethodRecipe>,
}

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
    /// Parameters; those left out take their defaults.
    #[serde(flatten)]
    pub parameters: Parameters,
}

/// What a command line says beside a recipe file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Fields of the recipe.
    pub fields: Table,
    /// Registered names, the recipe's names or labels, or `all`; none means the recipe's list, or all.
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
        let mut table = parse("default recipe", DEFAULT)?;
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
            table.extend(parse(&path.display().to_string(), &text)?);
        }
        table.extend(overrides.fields.clone());
        let mut recipe: Self = serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
            let origin = file.map_or("recipe".to_owned(), |path| path.display().to_string());
            LakeError::Parse { path: origin, problem: error.to_string() }
        })?;
        recipe.select(&overrides.methods)?;
        for assignment in &overrides.assignments {
            recipe.assign(assignment)?;
        }
        recipe.validate()?;
        Ok(recipe)
    }

    /// The objectives, one for each entry of `method`.
    ///
    /// # Errors
    ///
    /// [`LakeError::Registry`] for an unknown method or parameter.
    pub fn objectives(&self) -> Result<Vec<Box<dyn Objective>>, LakeError> {
        self.method.iter().map(|method| Ok(registry::build(&method.name, &method.parameters)?)).collect()
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
                registry::find(&name)?;
                chosen.push(MethodRecipe { name, label: None, parameters: Parameters::new() });
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
            (Some(_), 0) => {
                Err(fail(&format!("{OPTIMIZER} or a chosen method before the dot: {}", labels.join(", ")), key))
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
        const OWNER: &str = "recipe";
        check_number(OWNER, "gamma", BELOW_ONE, self.gamma)?;
        check_number(OWNER, "learning_rate", POSITIVE, self.learning_rate)?;
        check_number(OWNER, "warmup_ratio", UNIT, self.warmup_ratio)?;
        if let Some(clip_norm) = self.clip_norm {
            check_number(OWNER, "clip_norm", POSITIVE, clip_norm)?;
        }
        for (name, value, most) in
            [("hidden", self.hidden, 65_536), ("steps", self.steps, 10_000_000), ("seeds", self.seeds, 1_000_000)]
        {
            if !(1..=most).contains(&value) {
                return Err(field(&format!("{OWNER}.{name}"), &format!("1 to {most}"), value));
            }
        }
        const LAST_SEED: u64 = i64::MAX as u64 - 1_000_000;
        if self.seed > LAST_SEED {
            return Err(field(&format!("{OWNER}.seed"), &format!("0 to {LAST_SEED}"), self.seed));
        }

        self.optimizer.parameters = self.optimizer()?.parameters();
        let objectives = self.objectives()?;
        for (objective, entry) in objectives.iter().zip(&mut self.method) {
            entry.parameters = objective.parameters();
            if let Anticipation::Residual { lambda, .. } = objective.requirements().anticipation
                && lambda.least != lambda.most
                && self.warmup_ratio == 0.0
            {
                let lambda_min = format!("{}.{}", entry.label(), LAMBDA_MIN.name);
                return Err(field(
                    &lambda_min,
                    "lambda itself where warmup_ratio = 0, as it rises in the warm-up",
                    lambda.least,
                ));
            }
        }
        for (index, entry) in self.method.iter().enumerate() {
            let label = entry.label();
            let is_word = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
            if label.is_empty() || label.len() > 40 || !label.chars().all(is_word) {
                return Err(field("method.label", "1 to 40 letters, digits, -, _ or +", format!("\"{label}\"")));
            }
            if self.method[..index].iter().any(|earlier| earlier.label() == label) {
                return Err(field("method.label", "a different one for each entry", format!("\"{label}\" twice")));
            }
        }
        Ok(())
    }
}

impl MethodRecipe {
    /// What the result is called.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.label() == name || self.name == name
    }
}

fn parse(origin: &str, text: &str) -> Result<Table, LakeError> {
    text.parse()
        .map_err(|error: toml::de::Error| LakeError::Parse { path: origin.to_owned(), problem: error.to_string() })
}

fn field(field: &str, allowed: &str, given: impl std::fmt::Display) -> LakeError {
    LakeError::Field { field: field.to_owned(), allowed: allowed.to_owned(), given: given.to_string() }
}
