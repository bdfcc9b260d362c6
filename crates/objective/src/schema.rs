//! JSON schema of methods and parameters, made from the registry, for editors and programs that check recipes.
//!
//! The schema contains names, kinds and ranges. Only building an objective detects a parameter without effect.

use std::borrow::Cow;
use std::ops::Bound;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::WeightedSum;
use crate::configured::{Configured, NAME};
use crate::losses::weighted_sum::WEIGHT;
use crate::parameter::Registered;
use crate::parameter::{Interval, Kind, Parameter};
use crate::registry::METHODS;

/// Schema of a table with the name and the parameters of any method, and the additional properties `beside`.
///
/// ```
/// let schema = objective::schema::methods(&mut schemars::SchemaGenerator::default(), &[]);
/// assert_eq!(schema.as_value()["oneOf"][1]["properties"]["name"]["const"], "dpo");
/// assert_eq!(schema.as_value()["oneOf"][1]["properties"]["beta"]["maximum"], 1e6);
/// ```
pub fn methods(generator: &mut SchemaGenerator, beside: &[(&str, Value)]) -> Schema {
    let tables =
        METHODS.iter().map(|method| table(generator, method.name, method.summary, &(method.parameters)(), beside));
    json_schema!({ "oneOf": tables.collect::<Vec<_>>() })
}

/// Schema of a table with this name, any of these parameters, and the additional properties `beside`.
///
/// ```
/// use objective::{Parameter, parameter::{Kind, UNIT}};
///
/// let share = Parameter { name: "share", kind: Kind::Number { default: 0.5, range: UNIT }, purpose: "of the whole" };
/// let generator = &mut schemars::SchemaGenerator::default();
/// let schema = objective::schema::table(generator, "cake", "Sweet.", &[share], &[]);
/// assert_eq!(schema.as_value()["properties"]["share"]["default"], 0.5);
/// assert_eq!(schema.as_value()["additionalProperties"], false);
/// ```
pub fn table(
    generator: &mut SchemaGenerator,
    name: &str,
    description: &str,
    parameters: &[Parameter],
    beside: &[(&str, Value)],
) -> Schema {
    let mut properties = Map::from_iter([(NAME.to_owned(), json!({ "const": name }))]);
    properties.extend(beside.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    properties.extend(parameters.iter().map(|own| (own.name.to_owned(), parameter(generator, own).to_value())));
    json_schema!({
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [NAME],
        "additionalProperties": false,
    })
}

/// Schema of a parameter.
///
/// ```
/// let tdpo = (objective::registry::find("tdpo").unwrap().parameters)();
/// let schema = objective::schema::parameter(&mut schemars::SchemaGenerator::default(), &tdpo[2]);
/// assert_eq!(schema.as_value()["enum"], serde_json::json!(["1", 1, "2", 2]));
/// ```
pub fn parameter(generator: &mut SchemaGenerator, parameter: &Parameter) -> Schema {
    let mut schema = match parameter.kind {
        Kind::Number { range, .. } | Kind::Derived { range, .. } => number(range),
        Kind::Count { least, most, .. } => json_schema!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Choice { options, .. } => {
            // The names of variants may be numbers.
            let spellings = |option: &&str| [Some(json!(option)), option.parse::<u64>().ok().map(Value::from)];
            json_schema!({ "enum": options.iter().flat_map(spellings).flatten().collect::<Vec<_>>() })
        }
        Kind::Switch { .. } => json_schema!({ "type": "boolean" }),
        Kind::Terms { .. } => {
            let items = generator.subschema_for::<Term>();
            // A sum whose weights are all 0 trains nothing.
            let weight = WEIGHT.name;
            let weightless = json!({ "properties": { weight: { "const": 0 } }, "required": [weight] });
            json_schema!({ "type": "array", "minItems": 1, "items": items, "not": { "items": weightless } })
        }
    };
    let purpose = match parameter.kind {
        Kind::Derived { default, .. } => format!("{}; by default {default}", parameter.purpose),
        _ => {
            schema.insert("default".to_owned(), json!(parameter.default()));
            parameter.purpose.to_owned()
        }
    };
    schema.insert("description".to_owned(), purpose.into());
    schema
}

/// Schema of a number in an interval.
///
/// ```
/// let schema = objective::schema::number(objective::parameter::BELOW_ONE);
/// assert_eq!(schema.as_value()["minimum"], 0.0);
/// assert_eq!(schema.as_value()["exclusiveMaximum"], 1.0);
/// ```
pub fn number((low, high): Interval) -> Schema {
    let mut schema = json_schema!({ "type": "number" });
    for (bound, inclusive, exclusive) in [(low, "minimum", "exclusiveMinimum"), (high, "maximum", "exclusiveMaximum")] {
        match bound {
            Bound::Included(bound) => drop(schema.insert(inclusive.to_owned(), bound.into())),
            Bound::Excluded(bound) => drop(schema.insert(exclusive.to_owned(), bound.into())),
            Bound::Unbounded => {}
        }
    }
    schema
}

impl JsonSchema for Configured {
    fn schema_name() -> Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        methods(generator, &[])
    }
}

/// A term of a sum, which cannot itself be a sum.
struct Term;

impl JsonSchema for Term {
    fn schema_name() -> Cow<'static, str> {
        "Term".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let weight = parameter(generator, &WEIGHT).to_value();
        let beside = [(WEIGHT.name, weight)];
        let terms = METHODS.iter().filter(|method| method.name != WeightedSum::METHOD.name);
        let tables = terms.map(|method| table(generator, method.name, method.summary, &(method.parameters)(), &beside));
        json_schema!({ "oneOf": tables.collect::<Vec<_>>() })
    }
}
