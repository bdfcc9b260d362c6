//! Methods and optimizer of a recipe: as a file and a command line spell them, and with their parameters checked.

use std::borrow::Cow;

use objective::{
    Anticipation, Configured, Constant, METHODS, Parameters, Requirements, Source, Statistic, Value, registry, schema,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use training::{OPTIMIZERS, OptimizerSettings};

use super::{ALL, LONGEST_LABEL, OPTIMIZER, field};
use crate::error::LakeError;
use crate::spelling::suggest;

/// A method with valid parameters, what trains before it, and a label where a recipe lists it more than once.
///
/// It is written with all parameters in force, and reads back as the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "MethodSpelling", try_from = "MethodSpelling")]
pub struct MethodRecipe {
    /// Label of the result in tables and figures; the method's name where it is left out.
    pub label: Option<String>,
    /// Methods that train before it, one behind the other and each for as many steps.
    pub after: Vec<Configured>,
    /// The method, with its parameters.
    pub method: Configured,
}

/// Methods and optimizer before their parameters are checked: a command line still changes them one by one.
#[derive(Deserialize)]
pub(super) struct Spelling {
    pub(super) optimizer: OptimizerSpelling,
    #[serde(default)]
    pub(super) method: Vec<MethodSpelling>,
}

/// An optimizer by name, with the parameters given.
#[derive(Serialize, Deserialize)]
pub(super) struct OptimizerSpelling {
    name: String,
    #[serde(flatten)]
    parameters: Parameters,
}

/// A method by name, with the parameters given.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MethodSpelling {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    after: Vec<Parameters>,
    #[serde(flatten)]
    parameters: Parameters,
}

impl MethodRecipe {
    /// Label of the result in tables and figures.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(self.name())
    }

    /// Name of the method in the registry.
    pub fn name(&self) -> &'static str {
        self.method.method().name
    }

    /// Its methods in the order in which they train; the last is its own.
    pub fn stages(&self) -> impl Iterator<Item = &Configured> {
        self.after.iter().chain([&self.method])
    }

    /// The names of its methods, joined by `+`.
    pub(super) fn sequence_name(&self) -> String {
        self.stages().map(|stage| stage.method().name).collect::<Vec<_>>().join("+")
    }

    /// Whether its label is the name of another method, or of other methods in sequence.
    pub(super) fn borrows_a_name(&self) -> bool {
        let Some(label) = &self.label else { return false };
        let is_name = label.split('+').all(|name| registry::find(name).is_ok());
        is_name && *label != self.name() && *label != self.sequence_name()
    }

    /// Refuses methods whose data a lake does not have, and a λ that no warm-up raises.
    pub(super) fn check(&self, warmup_ratio: f64) -> Result<(), LakeError> {
        for requirements in self.stages().map(|stage| stage.objective().requirements()) {
            check_data(self.label(), &requirements)?;
            if let Anticipation::Residual { lambda, .. } = requirements.anticipation
                && lambda.least != lambda.most
                && warmup_ratio == 0.0
            {
                let lambda_min = format!("{}.lambda_min", self.label());
                let allowed = "lambda itself where warmup_ratio = 0, as it rises in the warm-up";
                return Err(field(&lambda_min, allowed, lambda.least));
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

impl Spelling {
    /// Replaces the list by the wanted methods: its entries by their names or labels, others at their defaults.
    pub(super) fn select(&mut self, wanted: &[String]) -> Result<(), LakeError> {
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
                chosen.push(MethodSpelling::sequence(&name)?);
            }
            chosen.extend(listed);
        }
        self.method = chosen;
        Ok(())
    }

    /// Sets a parameter of the optimizer or of chosen methods: `parameter=value` or `owner.parameter=value`.
    pub(super) fn assign(&mut self, assignment: &str) -> Result<(), LakeError> {
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
}

impl MethodSpelling {
    /// Methods joined by `+`, at their defaults.
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

    fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.label() == name || self.name == name
    }
}

impl TryFrom<MethodSpelling> for MethodRecipe {
    type Error = LakeError;

    fn try_from(MethodSpelling { name, label, after, parameters }: MethodSpelling) -> Result<Self, LakeError> {
        let after = after.into_iter().map(Configured::try_from).collect::<Result<_, _>>()?;
        Ok(Self { label, after, method: Configured::named(&name, &parameters)? })
    }
}

impl From<MethodRecipe> for MethodSpelling {
    fn from(MethodRecipe { label, after, method }: MethodRecipe) -> Self {
        Self {
            name: method.method().name.to_owned(),
            label,
            after: after.iter().map(Parameters::from).collect(),
            parameters: method.objective().parameters(),
        }
    }
}

impl TryFrom<OptimizerSpelling> for OptimizerSettings {
    type Error = LakeError;

    fn try_from(OptimizerSpelling { name, parameters }: OptimizerSpelling) -> Result<Self, LakeError> {
        Ok(Self::build(&name, &parameters)?)
    }
}

/// Writes an optimizer with its name first.
pub(super) fn name_first<S: Serializer>(optimizer: &OptimizerSettings, serializer: S) -> Result<S::Ok, S::Error> {
    let (name, parameters) = (optimizer.name().to_owned(), optimizer.parameters());
    OptimizerSpelling { name, parameters }.serialize(serializer)
}

impl JsonSchema for OptimizerSpelling {
    fn schema_name() -> Cow<'static, str> {
        "Optimizer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let tables = OPTIMIZERS
            .iter()
            .map(|entry| schema::table(generator, entry.name, entry.summary, &(entry.parameters)(), &[]));
        json_schema!({ "oneOf": tables.collect::<Vec<_>>() })
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
