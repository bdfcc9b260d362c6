//! The methods of a recipe before their parameters are checked: chosen by a command line, and found by assignments.

use objective::{METHODS, registry};
use recipe::{MethodPlace, method};
use toml::{Table, Value};

use super::{ALL, METHOD, STAGE, field};
use crate::error::LakeError;

/// The key of a method's name.
const NAME: &str = "name";
/// The key of a method's label.
const LABEL: &str = "label";
/// The key of the methods that train before one.
const AFTER: &str = "after";

/// The chosen methods of a recipe's table.
pub(super) enum Chosen {
    /// Methods to compare, in the field `method`; for each, whether its label consists of the names of its stages.
    Methods(Vec<bool>),
    /// Stages of one policy, in the field `stage`.
    Stages,
}

impl Chosen {
    /// Replaces the methods of a recipe by the wanted ones. A wanted name or label selects an entry of the recipe, or
    /// else a method with its defaults; the given parameters are then set.
    pub(super) fn new(table: &mut Table, wanted: &[String]) -> Result<Self, LakeError> {
        let listed: Vec<_> = tables(table, METHOD).cloned().collect();
        if wanted.is_empty() && table.contains_key(STAGE) {
            return match listed.first() {
                None => Ok(Self::Stages),
                Some(_) => Err(field("recipe.stage", "either [[stage]] or [[method]]", "both")),
            };
        }
        table.remove(STAGE);
        let every = || METHODS.iter().map(|method| method.name.to_owned());
        let texts: Vec<_> = match wanted {
            [] if !listed.is_empty() => return Ok(Self::Methods(vec![false; listed.len()])),
            [] => every().collect(),
            texts => texts
                .iter()
                .map(|text| text.trim())
                .flat_map(|text| if text == ALL { every().collect() } else { vec![text.to_owned()] })
                .collect(),
        };
        let mut rows = Vec::new();
        for text in &texts {
            let is_named = |name: &str| listed.iter().any(|entry| answers_to(entry, name));
            let head = if is_named(text) { text } else { method::head(text) };
            let given = if is_named(text) { Table::new() } else { method::parameters(text)? };
            if !is_named(head) {
                let (entry, joined) = sequence(text)?;
                rows.push(Row { entry, given, joined });
                continue;
            }
            let entries = listed.iter().filter(|entry| answers_to(entry, head));
            rows.extend(entries.map(|entry| {
                let entry = entry.clone().into_iter().chain(given.clone()).collect();
                Row { entry, given: given.clone(), joined: false }
            }));
        }
        let joined = rows.iter().map(|row| row.joined && label(&row.entry) == stage_names(&row.entry)).collect();
        let methods = tell_apart(rows).into_iter().map(Value::Table).collect();
        table.insert(METHOD.to_owned(), Value::Array(methods));
        Ok(Self::Methods(joined))
    }

    /// Replaces an assignment's path into a stage by the path of the stage's method, if the recipe has methods instead
    /// of stages.
    pub(super) fn path(&self, table: &Table, assignment: &str) -> Result<String, LakeError> {
        let rest = assignment.trim_start().strip_prefix("stage.");
        let (Self::Methods(_), Some((index, rest))) = (self, rest.and_then(|rest| rest.split_once('.'))) else {
            return Ok(assignment.to_owned());
        };
        let refuse = |allowed: &str| Err(field("--set", allowed, format!("\"{assignment}\"")));
        let methods: Vec<_> = tables(table, METHOD).collect();
        let [entry] = methods.as_slice() else {
            return refuse(&format!("method.parameter=value where {} methods are chosen", methods.len()));
        };
        let after = tables(entry, AFTER).count();
        match (rest.strip_prefix("method."), index.parse::<usize>()) {
            (Some(rest), Ok(index)) if index == after => Ok(format!("{METHOD}.0.{rest}")),
            (Some(rest), Ok(index)) if index < after => Ok(format!("{METHOD}.0.{AFTER}.{index}.{rest}")),
            _ => refuse(&format!("stage.STAGE.method.PARAMETER=VALUE with a stage from 0 to {after}")),
        }
    }

    /// The methods that an assignment may name.
    pub(super) fn places(&self, table: &Table) -> Vec<MethodPlace> {
        let place =
            |path: String, entry: &Table| MethodPlace { path, name: text(entry, NAME).to_owned(), label: label(entry) };
        match self {
            Self::Methods(_) => {
                let entries = tables(table, METHOD).enumerate();
                entries.map(|(index, entry)| place(format!("{METHOD}.{index}"), entry)).collect()
            }
            Self::Stages => {
                let stages = tables(table, STAGE).enumerate();
                let own = |(index, stage): (usize, &Table)| {
                    Some(place(format!("{STAGE}.{index}.{METHOD}"), stage.get(METHOD)?.as_table()?))
                };
                stages.filter_map(own).collect()
            }
        }
    }

    /// Converts stages to one method with earlier methods, and labels methods by the names of their stages.
    pub(super) fn label(self, table: &mut Table) -> Result<(), LakeError> {
        let joined = match self {
            Self::Methods(joined) => joined,
            Self::Stages => {
                let own = |stage: &Table| stage.get(METHOD).and_then(Value::as_table).cloned();
                let stages: Option<Vec<_>> = tables(table, STAGE).map(own).collect();
                let Some((last, before)) = stages.as_deref().and_then(<[_]>::split_last) else {
                    return Err(field("recipe.stage", "at least one [[stage]], each with a method", "none"));
                };
                let mut entry = last.clone();
                if !before.is_empty() {
                    entry.insert(AFTER.to_owned(), before.iter().cloned().map(Value::Table).collect::<Vec<_>>().into());
                }
                table.remove(STAGE);
                table.insert(METHOD.to_owned(), Value::Array(vec![Value::Table(entry)]));
                vec![!before.is_empty()]
            }
        };
        let entries = table.get_mut(METHOD).and_then(Value::as_array_mut).into_iter().flatten();
        for (entry, joined) in entries.filter_map(Value::as_table_mut).zip(joined) {
            if joined {
                let names = stage_names(entry);
                entry.insert(LABEL.to_owned(), names.into());
            }
        }
        Ok(())
    }
}

/// A chosen method, with the parameters that its text gives.
struct Row {
    entry: Table,
    given: Table,
    joined: bool,
}

/// Makes equal labels of rows distinct by adding the given parameters.
fn tell_apart(rows: Vec<Row>) -> Vec<Table> {
    let labels: Vec<_> = rows.iter().map(|row| label(&row.entry)).collect();
    let label_of = |(row, own): (Row, &String)| {
        let mut entry = row.entry;
        let is_shared = labels.iter().filter(|label| *label == own).count() > 1;
        if is_shared && !row.given.is_empty() {
            entry.insert(LABEL.to_owned(), method::label(own, &row.given).into());
        }
        entry
    };
    rows.into_iter().zip(&labels).map(label_of).collect()
}

/// Parses methods joined by `+` as one entry, and returns whether there are several.
fn sequence(names: &str) -> Result<(Table, bool), LakeError> {
    let mut stages = method::parse(names)?;
    for stage in &stages {
        registry::find(text(stage, NAME))?;
    }
    let mut entry = stages.pop().unwrap_or_default();
    let joined = !stages.is_empty();
    if joined {
        entry.insert(AFTER.to_owned(), stages.into_iter().map(Value::Table).collect::<Vec<_>>().into());
        let names = stage_names(&entry);
        entry.entry(LABEL).or_insert(names.into());
    }
    Ok((entry, joined))
}

/// The tables of a list.
fn tables<'a>(table: &'a Table, list: &str) -> impl Iterator<Item = &'a Table> {
    table.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn text<'a>(entry: &'a Table, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn label(entry: &Table) -> String {
    text(entry, if entry.contains_key(LABEL) { LABEL } else { NAME }).to_owned()
}

/// The names of an entry's methods, joined by `+`.
fn stage_names(entry: &Table) -> String {
    tables(entry, AFTER).chain([entry]).map(|stage| text(stage, NAME)).collect::<Vec<_>>().join("+")
}

fn answers_to(entry: &Table, name: &str) -> bool {
    label(entry) == name || text(entry, NAME) == name
}
