//! Methods and optimizer of a recipe: as a file and a command line spell them, and with their parameters checked.

use std::borrow::Cow;

use objective::{Anticipation, Configured, Constant, Parameters, Requirements, Source, Statistic, registry, schema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use training::OptimizerSettings;

use super::{LONGEST_LABEL, field};
use crate::error::LakeError;

/// A method with valid parameters, the methods that train before it, and a label if the recipe lists it more than once.
///
/// It is written with all parameters in force, and reads back as the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "MethodSpelling", try_from = "MethodSpelling")]
pub struct MethodRecipe {
    /// Label of the result in tables and figures; the method's name where it is left out.
    pub label: Option<String>,
    /// Methods that train before this one, one after the other, each for the same number of steps.
    pub after: Vec<Configured>,
    /// The method, with its parameters.
    pub method: Configured,
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

    /// The entry's methods in the order in which they train, the last of which is `method`.
    pub fn stages(&self) -> impl Iterator<Item = &Configured> {
        self.after.iter().chain([&self.method])
    }

    /// The names of the entry's methods, joined by `+`.
    pub(super) fn sequence_name(&self) -> String {
        self.stages().map(|stage| stage.method().name).collect::<Vec<_>>().join("+")
    }

    /// Whether the entry's label is the name of another method, or of other methods in sequence.
    pub(super) fn borrows_a_name(&self) -> bool {
        let Some(label) = &self.label else { return false };
        let is_name = label.split('+').all(|name| registry::find(name).is_ok());
        is_name && *label != self.name() && *label != self.sequence_name()
    }

    /// Refuses methods whose data a lake does not have, and a λ that should rise during a warm-up if there is no
    /// warm-up.
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

impl JsonSchema for MethodRecipe {
    fn schema_name() -> Cow<'static, str> {
        "Entry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let label = json_schema!({
            "type": "string",
            "pattern": format!("^[A-Za-z0-9_+.-]{{1,{LONGEST_LABEL}}}$"),
            "description": "label of the result; by default the name",
        });
        let after = json_schema!({
            "type": "array",
            "items": generator.subschema_for::<Configured>(),
            "description": "methods that train before it, one behind the other and each for as many steps",
        });
        schema::methods(generator, &[("label", label.to_value()), ("after", after.to_value())])
    }
}
