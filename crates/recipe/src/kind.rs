//! Kinds of fields: the allowed values of each, from the field's JSON schema.

use std::ops::Bound;

use objective::parameter::Interval;
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::declaration::Field;
use crate::refusal::Refusal;

/// Allowed values of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A number in an interval.
    Number {
        /// Interval of the allowed numbers.
        range: Interval,
        /// Whether an infinite number is allowed.
        infinite: bool,
    },
    /// A whole number.
    Count {
        /// The smallest allowed number.
        min: u64,
        /// The greatest allowed number; `None` if only its type limits it.
        max: Option<u64>,
    },
    /// A boolean, `true` or `false`.
    Switch,
    /// One of these names.
    Names(Vec<String>),
    /// Any text.
    Text,
    /// A table with one of these names as its `name`, such as a method with its parameters.
    Named(Vec<String>),
    /// A list of items of one kind.
    List {
        /// The kind of each item.
        items: Box<Kind>,
        /// The allowed numbers of items; the last may be without a limit.
        length: (usize, Option<usize>),
    },
    /// A table of declared fields.
    Table {
        /// Declared fields of the table.
        fields: Vec<Field>,
        /// Whether other fields are allowed.
        open: bool,
    },
    /// A value that only deserialization checks.
    Any,
}

impl Kind {
    /// The kind that a schema describes. `root` has the definitions that the schema refers to.
    pub(crate) fn of(root: &Json, schema: &Json) -> Self {
        if let Some(name) = schema["$ref"].as_str() {
            return root.pointer(name.trim_start_matches('#')).map_or(Self::Any, |schema| Self::of(root, schema));
        }
        if let Some(names) = schema["enum"].as_array() {
            return Self::Names(names.iter().filter_map(Json::as_str).map(str::to_owned).collect());
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let others: Vec<_> = choices.iter().filter(|choice| choice["type"] != "null").collect();
            return if let [only] = others.as_slice() { Self::of(root, only) } else { Self::Any };
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let named = |path: &str| {
                let name = |choice: &Json| Some(choice.pointer(path)?.as_str()?.to_owned());
                choices.iter().map(name).collect::<Option<Vec<_>>>()
            };
            let names = named("/const").map(Self::Names);
            return names.or_else(|| named("/properties/name/const").map(Self::Named)).unwrap_or(Self::Any);
        }
        let is = |name: &str| match &schema["type"] {
            Json::Array(names) => names.iter().any(|own| own == name),
            own => own == name,
        };
        match () {
            () if is("boolean") => Self::Switch,
            () if is("integer") => {
                Self::Count { min: schema["minimum"].as_u64().unwrap_or(0), max: schema["maximum"].as_u64() }
            }
            () if is("number") => {
                Self::Number { range: interval(schema), infinite: schema["x-infinite"].as_bool().unwrap_or(false) }
            }
            () if is("string") => Self::Text,
            () if is("array") => {
                let count = |name: &str| schema[name].as_u64().map(|count| count as usize);
                let items = Box::new(Self::of(root, &schema["items"]));
                Self::List { items, length: (count("minItems").unwrap_or(0), count("maxItems")) }
            }
            () if is("object") && schema["properties"].is_object() => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let fields = fields.map(|(name, schema)| Field::of(root, name, schema)).collect();
                Self::Table { fields, open: schema["additionalProperties"] != false }
            }
            () => Self::Any,
        }
    }

    /// Description of the allowed values of a field of this name.
    pub fn allowed(&self, name: &str) -> String {
        match self {
            Self::Number { range: (low, high), infinite } => {
                let low = bound(*low, |bound| format!("{bound} <= "), |bound| format!("{bound} < "));
                let high = bound(*high, |bound| format!(" <= {bound}"), |bound| format!(" < {bound}"));
                let range = if low.is_empty() && high.is_empty() { "" } else { &format!(", {low}{name}{high}") };
                format!("a number{range}{}", if *infinite { ", or inf" } else { "" })
            }
            Self::Count { min, max: Some(max) } => format!("{min} to {max}"),
            Self::Count { min: 0, max: None } => "a whole number".to_owned(),
            Self::Count { min, max: None } => format!("at least {min}"),
            Self::Switch => "true or false".to_owned(),
            Self::Names(names) => format!("one of {}", names.join(", ")),
            Self::Text => "text".to_owned(),
            Self::Named(_) => "a table with a name".to_owned(),
            Self::List { length: (1, None), .. } => "at least one".to_owned(),
            Self::List { length: (length, Some(max)), .. } if length == max => format!("a list of length {length}"),
            Self::List { .. } => "a list".to_owned(),
            Self::Table { .. } => "a table".to_owned(),
            Self::Any => "another value".to_owned(),
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with the path of the field that is unknown, of another kind or out of its range.
    pub fn check(&self, path: &str, value: &Value) -> Result<(), Refusal> {
        let refuse = || {
            let given = match value {
                Value::Float(number) => objective::Value::Number(*number).to_string(),
                Value::Table(_) => "a table".to_owned(),
                Value::Array(list) if list.is_empty() => "none".to_owned(),
                Value::Array(list) => format!("one of length {}", list.len()),
                value => value.to_string(),
            };
            let given = if matches!(self, Self::Names(_)) { given.trim_matches('"').to_owned() } else { given };
            Err(Refusal::new(path, self.allowed(last(path)), given))
        };
        let is_valid = match (self, value) {
            (Self::Number { range, infinite }, value) => match number(value) {
                Some(number) => {
                    (number.is_finite() && range_contains(range, number))
                        || (*infinite && number > 0.0 && number.is_infinite())
                }
                None => false,
            },
            (Self::Count { min, max }, Value::Integer(count)) => {
                u64::try_from(*count).is_ok_and(|count| count >= *min && max.is_none_or(|max| count <= max))
            }
            (Self::Switch, Value::Boolean(_)) | (Self::Text, Value::String(_)) => true,
            (Self::Names(names), Value::String(name)) if names.contains(name) => true,
            (Self::Names(names), Value::String(name)) => {
                return refuse().map_err(|refusal| refusal.suggest(name, names.iter().map(String::as_str)));
            }
            (Self::Named(_), Value::Table(_)) | (Self::Any, _) => true,
            (Self::List { items, length: (min, max) }, Value::Array(list)) => {
                if list.len() < *min || max.is_some_and(|max| list.len() > max) {
                    return refuse();
                }
                let mut items =
                    list.iter().enumerate().map(|(index, item)| items.check(&format!("{path}[{index}]"), item));
                return items.find(Result::is_err).unwrap_or(Ok(()));
            }
            (Self::Table { fields, open }, Value::Table(table)) => return check_fields(path, fields, *open, table),
            _ => false,
        };
        if is_valid { Ok(()) } else { refuse() }
    }

    /// Parses a text of the command line as a value of this kind.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as [`check`](Self::check).
    pub fn parse(&self, path: &str, text: &str) -> Result<Value, Refusal> {
        let value = match self {
            Self::Text | Self::Names(_) => match literal(text) {
                Some(Value::String(text)) => Value::String(text),
                _ => Value::String(text.to_owned()),
            },
            Self::Number { .. } => text.parse().map_or_else(|_| guess(text), Value::Float),
            // A TOML integer has 63 bits: a greater one is out of range.
            Self::Count { .. } => text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer),
            Self::Named(_) => match guess(text) {
                Value::String(name) => Value::Table(Table::from_iter([("name".to_owned(), name.into())])),
                value => value,
            },
            _ => guess(text),
        };
        match self.check(path, &value) {
            // A value that is of no kind is shown as it was typed.
            Err(refusal) if matches!(value, Value::String(_)) => Err(Refusal { given: text.to_owned(), ..refusal }),
            checked => checked.map(|()| value),
        }
    }
}

/// Checks the fields of a table.
fn check_fields(path: &str, fields: &[Field], open: bool, table: &Table) -> Result<(), Refusal> {
    for (name, value) in table {
        let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match fields.iter().find(|field| field.name == *name) {
            Some(field) => field.kind.check(&place, value)?,
            None if open => {}
            None => {
                let names = || fields.iter().map(|field| field.name.as_str());
                let allowed = format!("a field: one of {}", names().collect::<Vec<_>>().join(", "));
                return Err(Refusal::new(place, allowed, format!("\"{name}\"")).suggest(name, names()));
            }
        }
    }
    Ok(())
}

/// Parses a text as TOML if it is a number, a boolean, a list or a table, and takes it as a string otherwise, so that
/// strings need no quotes.
pub(crate) fn guess(text: &str) -> Value {
    let number = || text.parse().ok().map(Value::Float);
    literal(text).or_else(number).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn literal(text: &str) -> Option<Value> {
    format!("value = {text}").parse::<Table>().ok().filter(|table| table.len() == 1)?.remove("value")
}

/// The last name of a path, without an index.
fn last(path: &str) -> &str {
    let name = path.rsplit('.').next().unwrap_or(path);
    name.split('[').next().unwrap_or(name)
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

fn range_contains(range: &Interval, number: f64) -> bool {
    std::ops::RangeBounds::contains(range, &number)
}

fn interval(schema: &Json) -> Interval {
    let bound = |inclusive: &str, exclusive: &str| match (schema[inclusive].as_f64(), schema[exclusive].as_f64()) {
        (_, Some(bound)) => Bound::Excluded(bound),
        (Some(bound), None) => Bound::Included(bound),
        (None, None) => Bound::Unbounded,
    };
    (bound("minimum", "exclusiveMinimum"), bound("maximum", "exclusiveMaximum"))
}

fn bound(
    bound: Bound<f64>,
    included: fn(objective::Value) -> String,
    excluded: fn(objective::Value) -> String,
) -> String {
    match bound {
        Bound::Included(number) => included(number.into()),
        Bound::Excluded(number) => excluded(number.into()),
        Bound::Unbounded => String::new(),
    }
}
