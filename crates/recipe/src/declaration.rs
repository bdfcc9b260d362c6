//! Declared fields of a recipe, read from the schema of a struct.
//!
//! Besides the keywords of JSON Schema a field's schema may have:
//!
//! | keyword | meaning |
//! |---|---|
//! | `x-group` | heading of the field's option in a program's help |
//! | `x-value` | placeholder of the option's value, such as `NAME\|FILE` |
//! | `x-infinite` | whether an infinite number is allowed, which JSON cannot express |
//! | `x-instead-of` | another field that says the same, which this one replaces |
//! | `x-unused` | whether the field is only allowed where something reads it; only there does it have its default |

use schemars::{JsonSchema, Schema};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::kind::Kind;
use crate::refusal::Refusal;

/// The list of stages.
pub(crate) const STAGE: &str = "stage";

/// A declared field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name of the field.
    pub name: String,
    /// Description in help and schema.
    pub help: String,
    /// The allowed values.
    pub kind: Kind,
    /// The default value, if there is one.
    pub default: Option<Value>,
    /// Name of the field's option on a command line, with hyphens.
    pub option: String,
    /// Heading of the option in a program's help; no option without one.
    pub group: Option<String>,
    /// Placeholder of the option's value.
    pub placeholder: Option<String>,
    /// Name of the field that this one replaces.
    pub instead_of: Option<String>,
    /// Whether the field is allowed, and has its default, only if something in the recipe reads it.
    pub unused: bool,
}

/// The declared fields of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    schema: Schema,
    fields: Vec<Field>,
    open: bool,
}

impl Declaration {
    /// The declaration of a struct.
    pub fn of<T: JsonSchema + DeserializeOwned>() -> Self {
        Self::new(schemars::schema_for!(T), names::<T>())
    }

    /// The declaration that a schema describes, its fields in the given order.
    pub fn new(schema: Schema, order: &[&str]) -> Self {
        let root = schema.as_value();
        let (mut fields, open) = match Kind::of(root, root) {
            Kind::Table { fields, open } => (fields, open),
            _ => (Vec::new(), true),
        };
        fields.sort_by_key(|field| order.iter().position(|name| *name == field.name).unwrap_or(order.len()));
        Self { schema, fields, open }
    }

    /// The JSON schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The fields, in the order of the struct.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The fields of each table of a list, such as `stage`.
    pub fn items(&self, list: &str) -> &[Field] {
        match self.field(list).map(|field| &field.kind) {
            Some(Kind::List { items, .. }) => match &**items {
                Kind::Table { fields, .. } => fields,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The defaults of all fields, except those whose default depends on other fields.
    pub fn defaults(&self) -> Table {
        let default = |field: &Field| Some((field.name.clone(), field.default.clone()?));
        self.fields.iter().filter(|field| !field.unused).filter_map(default).collect()
    }

    /// Whether each stage has a field of this name.
    pub fn is_of_stages(&self, name: &str) -> bool {
        self.items(STAGE).iter().any(|field| field.name == name)
    }

    /// Checks the names, places, kinds and ranges of a table's fields. No field is required.
    ///
    /// # Errors
    ///
    /// [`Refusal`] of the first wrong field.
    pub fn check(&self, table: &Table) -> Result<(), Refusal> {
        let stages = table.get(STAGE).and_then(Value::as_array).into_iter().flatten();
        let is_misplaced = |name: &&String| self.field(name).is_some() && !self.is_of_stages(name);
        for (index, stage) in stages.enumerate().filter_map(|(index, stage)| Some((index, stage.as_table()?))) {
            if let Some(name) = stage.keys().find(is_misplaced) {
                let allowed = "the field above the first [[stage]], as it holds for every stage";
                return Err(Refusal::new(format!("{STAGE}[{index}].{name}"), allowed, "it in a stage"));
            }
        }
        Kind::Table { fields: self.fields.clone(), open: self.open }.check("", &Value::Table(table.clone()))
    }

    /// Inserts a value, and removes the field that it replaces.
    pub fn put(&self, table: &mut Table, name: &str, value: Value) {
        if let Some(other) = self.field(name).and_then(|field| field.instead_of.as_deref()) {
            table.remove(other);
        }
        table.insert(name.to_owned(), value);
    }

    /// Replaces fields of a table by those of another one.
    pub fn overlay(&self, table: &mut Table, with: Table) {
        with.into_iter().for_each(|(name, value)| self.put(table, &name, value));
    }
}

impl Field {
    pub(crate) fn of(root: &Json, name: &str, schema: &Json) -> Self {
        let text = |key: &str| schema[key].as_str().map(str::to_owned);
        Self {
            name: name.to_owned(),
            help: text("description").unwrap_or_default(),
            kind: Kind::of(root, schema),
            default: Value::try_from(&schema["default"]).ok(),
            option: name.replace('_', "-"),
            group: text("x-group"),
            placeholder: text("x-value"),
            instead_of: text("x-instead-of"),
            unused: schema["x-unused"] == true,
        }
    }
}

/// The names of a struct's fields, in their order; empty for any other type.
pub fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // The deserializer of a struct is asked for its fields before anything is read.
    _ = T::deserialize(Names(&mut names));
    names
}

/// A deserializer that records the fields that a type requests, and provides none of them.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("only names are read"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("only names are read"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
