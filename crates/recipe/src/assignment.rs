//! Assignments of a command line: `KEY=VALUE`.
//!
//! | key | meaning |
//! |---|---|
//! | `steps` | a field of the recipe, or of every stage |
//! | `beta` | a parameter of the only chosen method that has it |
//! | `dpo.beta` | a parameter of the chosen methods of this name or label |
//! | `stage.0.method.beta`, `optimizer.momentum` | a path into the recipe; places of lists are numbers from 0 |
//!
//! A name without a dot is the first of these that exists: a field of stages, a parameter of a method, a field of the
//! recipe. A value needs no quotes.

use objective::registry;
use toml::{Table, Value};

use crate::declaration::{Declaration, Field, STAGE};
use crate::kind::{Kind, guess};
use crate::refusal::Refusal;

/// A chosen method, and the names that assignments have for it.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodPlace {
    /// Path of the method's table in the recipe, such as `stage.0.method`.
    pub path: String,
    /// Name of the method in the registry.
    pub name: String,
    /// Label of the method in assignments, such as its name.
    pub label: String,
}

impl MethodPlace {
    fn has(&self, parameter: &str) -> bool {
        self.parameters().iter().any(|own| own == parameter)
    }

    fn parameters(&self) -> Vec<String> {
        let method = registry::find(&self.name);
        let parameters = method.map(|method| (method.parameters)()).unwrap_or_default();
        parameters.into_iter().map(|parameter| parameter.name.to_owned()).collect()
    }
}

/// Replaces a field of a recipe by `KEY=VALUE`.
///
/// # Errors
///
/// [`Refusal`] of a key that leads nowhere, that several methods have, or whose value is not allowed.
pub fn assign(
    table: &mut Table,
    declaration: &Declaration,
    methods: &[MethodPlace],
    assignment: &str,
) -> Result<(), Refusal> {
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(Refusal::new(
            "assignment",
            "KEY=VALUE, such as steps=10 or dpo.beta=0.2",
            format!("\"{assignment}\""),
        ));
    };
    let (key, value) = (key.trim(), value.trim());
    if !key.contains('.') {
        return assign_name(table, declaration, methods, key, value);
    }
    let parts: Vec<_> = key.split('.').collect();
    if declaration.field(parts[0]).is_some() {
        return assign_path(table, declaration, &parts, value);
    }
    // A label may have dots itself; a parameter has none.
    let (owner, parameter) = key.rsplit_once('.').unwrap_or_default();
    let owned: Vec<_> = methods.iter().filter(|method| method.label == owner || method.name == owner).collect();
    if owned.is_empty() {
        let labels = || methods.iter().map(|method| method.label.as_str());
        let names = || declaration.fields().iter().map(|field| field.name.as_str());
        let chosen = if methods.is_empty() { "none" } else { &labels().collect::<Vec<_>>().join(", ") };
        let allowed = format!("a chosen method before the dot ({chosen}), or a field of the recipe");
        return Err(Refusal::new(key, allowed, format!("\"{owner}\"")).suggest(owner, labels().chain(names())));
    }
    owned.into_iter().try_for_each(|method| assign_parameter(table, declaration, method, parameter, value))
}

fn assign_name(
    table: &mut Table,
    declaration: &Declaration,
    methods: &[MethodPlace],
    key: &str,
    value: &str,
) -> Result<(), Refusal> {
    let field = declaration.field(key);
    let of_stages = declaration.items(STAGE).iter().find(|field| field.name == key);
    if let (Some(_), Some(field)) = (field, of_stages) {
        // It holds for every stage, whatever the file says of one.
        if let Some(Value::Array(stages)) = table.get_mut(STAGE) {
            let is_other = |name: &str| name != key && field.instead_of.as_deref() != Some(name);
            stages.iter_mut().filter_map(Value::as_table_mut).for_each(|stage| stage.retain(|name, _| is_other(name)));
        }
        declaration.put(table, key, field.kind.parse(key, value)?);
        return Ok(());
    }
    let owned: Vec<_> = methods.iter().filter(|method| method.has(key)).collect();
    match (owned.as_slice(), field) {
        ([method], _) => assign_parameter(table, declaration, method, key, value),
        ([], Some(field)) => {
            declaration.put(table, key, field.kind.parse(key, value)?);
            Ok(())
        }
        ([], None) => {
            let parameters: Vec<_> = methods.iter().flat_map(MethodPlace::parameters).collect();
            let fields: Vec<_> = declaration.fields().iter().map(|field| field.name.as_str()).collect();
            let of_methods = match parameters.as_slice() {
                [] => String::new(),
                names if methods.len() == 1 => format!(", or a parameter of {}: {}", methods[0].name, names.join(", ")),
                _ => ", or a parameter of a chosen method".to_owned(),
            };
            let allowed = format!("a field: one of {}{of_methods}", fields.join(", "));
            let names = fields.into_iter().chain(parameters.iter().map(String::as_str));
            Err(Refusal::new(key, allowed, format!("\"{key}\"")).suggest(key, names))
        }
        (several, _) => {
            let spelled: Vec<_> = several
                .iter()
                .map(|method| {
                    let is_one = several.iter().filter(|other| other.label == method.label).count() == 1;
                    format!("{}.{key}", if is_one { &method.label } else { &method.path })
                })
                .collect();
            let allowed = format!("one of {} where {} methods are chosen", spelled.join(", "), methods.len());
            Err(Refusal::new(key, allowed, format!("\"{key}\"")))
        }
    }
}

fn assign_parameter(
    table: &mut Table,
    declaration: &Declaration,
    method: &MethodPlace,
    parameter: &str,
    value: &str,
) -> Result<(), Refusal> {
    let parts: Vec<_> = method.path.split('.').chain([parameter]).collect();
    assign_path(table, declaration, &parts, value)
}

fn assign_path(table: &mut Table, declaration: &Declaration, parts: &[&str], value: &str) -> Result<(), Refusal> {
    let shared = table.clone();
    let mut path = Vec::new();
    let mut parts = parts.iter().copied();
    let (mut place, mut fields) = (table, Some(declaration.fields()));
    loop {
        let Some(part) = parts.next() else { return Ok(()) };
        path.push(part);
        let field = match fields {
            None => None,
            Some(fields) => Some(fields.iter().find(|field| field.name == part).ok_or_else(|| unknown(&path, fields))?),
        };
        if parts.len() == 0 {
            let spelled = path.join(".");
            let value = field.map_or_else(|| Ok(guess(value)), |field| field.kind.parse(&spelled, value))?;
            if let Some(other) = field.and_then(|field| field.instead_of.as_deref()) {
                place.remove(other);
            }
            place.insert(part.to_owned(), value);
            return Ok(());
        }
        // What a stage leaves out is what the recipe says, and else the default.
        let default = || shared.get(part).or(field?.default.as_ref()).filter(|value| value.is_table()).cloned();
        let mut kind = field.map(|field| &field.kind);
        let mut next = place.entry(part).or_insert_with(|| default().unwrap_or_else(|| Value::Table(Table::new())));
        while let Value::Array(list) = next {
            let index = parts.next().unwrap_or_default();
            path.push(index);
            let (spelled, length) = (path.join("."), list.len());
            next = index.parse::<usize>().ok().and_then(|index| list.get_mut(index)).ok_or_else(|| {
                let allowed = if length == 0 {
                    "no place, as the list is empty".to_owned()
                } else {
                    format!("0 to {}", length - 1)
                };
                Refusal::new(spelled, allowed, format!("\"{index}\""))
            })?;
            kind = match kind {
                Some(Kind::List { items, .. }) => Some(items),
                _ => None,
            };
        }
        fields = match kind {
            Some(Kind::Table { fields, open: false }) => Some(fields),
            _ => None,
        };
        let Value::Table(table) = next else {
            return Err(Refusal::new(path.join("."), "a table, as a dot leads into it", next));
        };
        place = table;
    }
}

fn unknown(path: &[&str], fields: &[Field]) -> Refusal {
    let name = path.last().copied().unwrap_or_default();
    let names = || fields.iter().map(|field| field.name.as_str());
    let allowed = format!("a field: one of {}", names().collect::<Vec<_>>().join(", "));
    Refusal::new(path.join("."), allowed, format!("\"{name}\"")).suggest(name, names())
}
