//! The fields in which two recipes differ.

use std::collections::BTreeSet;

use objective::{Configured, METHODS};
use serde::Deserialize;
use toml::{Table, Value};
use training::{OPTIMIZERS, OptimizerSettings};

use crate::declaration::{Declaration, Field};
use crate::kind::Kind;

/// The first field in which two recipes differ: its path, and the two values in TOML, or `nothing`.
pub fn first(one: &Table, other: &Table) -> Option<(String, String, String)> {
    let [one, other] = [one, other].map(|table| Value::Table(table.clone()));
    differ(String::new(), Some(&one), Some(&other))
}

fn differ(path: String, one: Option<&Value>, other: Option<&Value>) -> Option<(String, String, String)> {
    let inner = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    match (one, other) {
        (Some(Value::Table(one)), Some(Value::Table(other))) => {
            let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| differ(inner(key), one.get(key), other.get(key)))
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => (0..one.len().max(other.len()))
            .find_map(|index| differ(inner(&index.to_string()), one.get(index), other.get(index))),
        (one, other) if one == other => None,
        (one, other) => {
            let written = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            Some((path, written(one), written(other)))
        }
    }
}

/// The fields of a resolved recipe that differ from the defaults: a recipe that resolves to the same one.
///
/// `preset` gives the parameters of methods, by name, whose defaults are the program's own.
pub fn changes(declaration: &Declaration, resolved: &Table, preset: &dyn Fn(&str) -> Table) -> Table {
    changed(declaration.fields(), resolved, preset)
}

fn changed(fields: &[Field], table: &Table, preset: &dyn Fn(&str) -> Table) -> Table {
    let change = |(name, value): (&String, &Value)| {
        let field = fields.iter().find(|field| field.name == *name);
        let sparse = changed_value(field.map(|field| &field.kind), value, preset);
        let default = field.and_then(|field| field.default.as_ref());
        let is_default = default.is_some_and(|default| *default == sparse || *default == *value);
        (!is_default).then(|| (name.clone(), sparse))
    };
    table.iter().filter_map(change).collect()
}

fn changed_value(kind: Option<&Kind>, value: &Value, preset: &dyn Fn(&str) -> Table) -> Value {
    match (kind, value) {
        (Some(Kind::List { items, .. }), Value::Array(list)) => {
            Value::Array(list.iter().map(|item| changed_value(Some(items), item, preset)).collect())
        }
        (Some(Kind::Table { fields, .. }), Value::Table(table)) => Value::Table(changed(fields, table, preset)),
        (Some(Kind::Named(_)), Value::Table(table)) => Value::Table(changed_parameters(table, preset)),
        (_, value) => value.clone(),
    }
}

/// A method or optimizer without the parameters whose values are defaults, or with all parameters if these defaults
/// depend on others.
fn changed_parameters(table: &Table, preset: &dyn Fn(&str) -> Table) -> Table {
    let Some(name) = table.get("name").and_then(Value::as_str) else { return table.clone() };
    let Some(parameters) = parameters_of(name) else { return table.clone() };
    let named = || Table::from_iter([("name".to_owned(), name.into())]);
    let with_preset = |mut given: Table| {
        preset(name).into_iter().for_each(|(parameter, value)| _ = given.entry(parameter).or_insert(value));
        given
    };
    let (own, beside): (Table, Table) =
        table.clone().into_iter().partition(|(key, _)| key == "name" || parameters.contains(&key.as_str()));
    let (Some(defaults), Some(resolved)) = (in_force(with_preset(named())), in_force(own.clone())) else {
        return table.clone();
    };
    let differs = |(parameter, value): &(String, Value)| defaults.get(parameter) != Some(value);
    let sparse: Table = named().into_iter().chain(resolved.clone().into_iter().filter(differs)).collect();
    let is_same = in_force(with_preset(sparse.clone())).is_some_and(|again| again == resolved);
    // What stands beside the parameters may be methods as well: those that train before this one.
    let methods = Kind::List { items: Box::new(Kind::Named(Vec::new())), length: (0, None) };
    let beside = beside.into_iter().map(|(key, value)| {
        let value = changed_value(Some(&methods), &value, preset);
        (key, value)
    });
    if is_same { sparse } else { own }.into_iter().chain(beside).collect()
}

fn parameters_of(name: &str) -> Option<Vec<&'static str>> {
    let method = METHODS.iter().find(|method| method.name == name).map(|method| (method.parameters)());
    let optimizer = || OPTIMIZERS.iter().find(|kind| kind.name == name).map(|kind| (kind.parameters)());
    Some(method.or_else(optimizer)?.into_iter().map(|parameter| parameter.name).collect())
}

/// Every parameter in force of a method or optimizer.
fn in_force(table: Table) -> Option<Table> {
    let method = || Configured::deserialize(table.clone()).ok().and_then(|method| Table::try_from(method).ok());
    let optimizer = || OptimizerSettings::deserialize(table.clone()).ok().and_then(|kind| Table::try_from(kind).ok());
    method().or_else(optimizer)
}
