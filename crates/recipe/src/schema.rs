//! Schemas of fields whose types have no schema of their own, for `#[schemars(schema_with = "...")]`.

use schemars::{Schema, SchemaGenerator, json_schema};
use strum::VariantNames;
use training::OPTIMIZERS;

/// One of the names of an enum's variants.
pub fn names<T: VariantNames>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": T::VARIANTS })
}

/// A table with the name of an optimizer and its parameters.
pub fn optimizer(generator: &mut SchemaGenerator) -> Schema {
    let tables = OPTIMIZERS
        .iter()
        .map(|entry| objective::schema::table(generator, entry.name, entry.summary, &(entry.parameters)(), &[]));
    json_schema!({ "oneOf": tables.collect::<Vec<_>>() })
}

/// A date, such as 2024-07-26.
pub fn date(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date" })
}
