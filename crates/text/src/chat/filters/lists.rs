//! Filters of lists and dictionaries.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use minijinja::value::{DynObject, Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::super::arguments::{bind, fail, given, integer, is_true, number, size_or, subject};
use super::super::bounds::pay;
use super::super::comparison::compare;
use super::super::objects::{Generator, Group};
use super::super::predicates::is_namespace;
use super::super::python_text::python_str;
use super::{Filter, items, length};

pub(super) const FILTERS: [(&str, Filter); 24] = [
    ("length", |_state, arguments| length(subject(arguments)?.0).map(Value::from)),
    ("count", |_state, arguments| length(subject(arguments)?.0).map(Value::from)),
    ("list", |state, arguments| items(state, subject(arguments)?.0).map(Value::from)),
    ("first", |state, arguments| {
        Ok(items(state, subject(arguments)?.0)?.into_iter().next().unwrap_or(Value::UNDEFINED))
    }),
    ("last", last),
    ("reverse", reverse),
    ("sort", sort),
    ("unique", unique),
    ("max", |state, arguments| extreme(state, arguments, Ordering::Greater)),
    ("min", |state, arguments| extreme(state, arguments, Ordering::Less)),
    ("sum", sum),
    ("join", join),
    ("map", map),
    ("select", |state, arguments| select(state, arguments, true, false)),
    ("reject", |state, arguments| select(state, arguments, false, false)),
    ("selectattr", |state, arguments| select(state, arguments, true, true)),
    ("rejectattr", |state, arguments| select(state, arguments, false, true)),
    ("groupby", groupby),
    ("batch", batch),
    ("slice", slice),
    ("dictsort", dictsort),
    ("items", pairs),
    ("attr", attr),
    ("safe", |state, arguments| python_str(state, subject(arguments)?.0).map(Value::from_safe_string)),
];

/// Looks up `value[key]` or `value.key` as Jinja2 does; undefined if there is none.
fn look_up(value: &Value, key: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(fail(format!("{key}: looked up in an undefined value")));
    }
    Ok(value.get_item(key).unwrap_or(Value::UNDEFINED))
}

/// Looks up an attribute by its path of names and indices, separated by dots.
fn attribute(value: &Value, path: &Value, default: Option<&Value>) -> Result<Value, Error> {
    let Some(path) = path.as_str() else { return look_up(value, path) };
    let mut found = value.clone();
    for name in path.split('.') {
        let key = name.parse::<u32>().map_or_else(|_| Value::from(name), Value::from);
        found = look_up(&found, &key)?;
        if let (true, Some(default)) = (found.is_undefined(), default) {
            found = default.clone();
        }
    }
    Ok(found)
}

/// Key by which values are compared: their attribute, in lower case unless the comparison is case-sensitive.
struct KeyOf {
    paths: Vec<Value>,
    is_case_sensitive: bool,
}

impl KeyOf {
    fn new(attribute: Option<Value>, case_sensitive: Option<&Value>) -> Self {
        let paths = match given(attribute) {
            None => Vec::new(),
            Some(path) => match path.as_str() {
                Some(paths) => paths.split(',').map(Value::from).collect(),
                None => vec![path],
            },
        };
        Self { paths, is_case_sensitive: is_true(case_sensitive, false) }
    }

    fn key(&self, value: &Value) -> Result<Value, Error> {
        let fold = |value: Value| match value.as_str() {
            Some(text) if !self.is_case_sensitive => Value::from(text.to_lowercase()),
            _ => value,
        };
        match self.paths.as_slice() {
            [] => Ok(fold(value.clone())),
            [path] => attribute(value, path, None).map(fold),
            paths => {
                let keys: Result<Vec<_>, _> = paths.iter().map(|path| attribute(value, path, None).map(fold)).collect();
                Ok(Value::from(keys?))
            }
        }
    }
}

fn sorted<T>(state: &State<'_, '_>, mut values: Vec<(Value, T)>, reverse: bool) -> Result<Vec<(Value, T)>, Error> {
    state.consume_fuel(values.len() as u64 * u64::from(values.len().ilog2().max(1)).min(64))?;
    let mut failed = None;
    values.sort_by(|(left, _), (right, _)| {
        if let Err(error) = compare(left, right) {
            failed.get_or_insert(error);
        }
        // The engine's order of all values, which agrees with Python's where that is defined. The sort is stable.
        let order = left.cmp(right);
        if reverse { order.reverse() } else { order }
    });
    failed.map_or(Ok(values), Err)
}

fn last(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = subject(arguments)?;
    if value.downcast_object_ref::<Generator>().is_some() {
        return Err(fail("last: a generator has no last item; convert it to a list"));
    }
    Ok(items(state, value)?.pop().unwrap_or(Value::UNDEFINED))
}

fn reverse(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = subject(arguments)?;
    if let Some(text) = value.as_str() {
        pay(state, text.len())?;
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut values = items(state, value)?;
    values.reverse();
    Ok(Generator::value(values))
}

fn keyed(state: &State<'_, '_>, value: &Value, key: &KeyOf) -> Result<Vec<(Value, Value)>, Error> {
    items(state, value)?.into_iter().map(|item| Ok((key.key(&item)?, item))).collect()
}

fn sort(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [reverse, case_sensitive, attribute] = bind(arguments, ["reverse", "case_sensitive", "attribute"])?;
    let values = keyed(state, value, &KeyOf::new(attribute, case_sensitive.as_ref()))?;
    if values.is_empty() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let values = sorted(state, values, is_true(reverse.as_ref(), false))?;
    Ok(values.into_iter().map(|(_, item)| item).collect())
}

fn unique(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [case_sensitive, attribute] = bind(arguments, ["case_sensitive", "attribute"])?;
    let mut seen = BTreeSet::new();
    let values = keyed(state, value, &KeyOf::new(attribute, case_sensitive.as_ref()))?;
    let values = values.into_iter().filter_map(|(key, item)| seen.insert(key).then_some(item));
    Ok(Generator::value(values.collect()))
}

fn extreme(state: &mut State<'_, '_>, arguments: &[Value], order: Ordering) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [case_sensitive, attribute] = bind(arguments, ["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(state, value, &KeyOf::new(attribute, case_sensitive.as_ref()))? {
        let is_better = match &best {
            None => true,
            Some((other, _)) => compare(&key, other)? == order,
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn sum(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [path, start] = bind(arguments, ["attribute", "start"])?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    for item in items(state, value)? {
        let item = match &path {
            Some(path) => attribute(&item, path, None)?,
            None => item,
        };
        total = match (integer(&total), integer(&item), number(&total), number(&item)) {
            (Some(left), Some(right), ..) => {
                let sum = left.checked_add(right).ok_or_else(|| fail("sum: too large"))?;
                i64::try_from(sum).map_or_else(|_| Value::from(sum), Value::from)
            }
            (.., Some(left), Some(right)) => Value::from(left + right),
            _ if total.kind() == ValueKind::Seq && item.kind() == ValueKind::Seq => {
                state.consume_fuel(total.len().unwrap_or(0) as u64)?;
                Value::from(total.try_iter()?.chain(item.try_iter()?).collect::<Vec<_>>())
            }
            _ => return Err(fail(format!("sum: expected numbers, got {} and {}", total.kind(), item.kind()))),
        };
    }
    Ok(total)
}

fn join(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [separator, path] = bind(arguments, ["d", "attribute"])?;
    let separator = separator.map_or_else(|| Ok(String::new()), |separator| python_str(state, &separator))?;
    let mut joined = String::new();
    for (index, item) in items(state, value)?.into_iter().enumerate() {
        let item = match given(path.clone()) {
            Some(path) => attribute(&item, &path, None)?,
            None => item,
        };
        let item = python_str(state, &item)?;
        pay(state, separator.len() + item.len())?;
        joined.push_str(if index > 0 { &separator } else { "" });
        joined.push_str(&item);
    }
    Ok(Value::from(joined))
}

fn map(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let name = arguments.first().filter(|name| !name.is_kwargs());
    let mapped = match name.and_then(Value::as_str) {
        Some(name) => {
            let values = items(state, value)?;
            let more = &arguments[1..];
            let apply = |item| state.apply_filter(name, &[&[item][..], more].concat());
            values.into_iter().map(apply).collect::<Result<_, _>>()?
        }
        None => {
            let [path, default] = bind(arguments, ["attribute", "default"])?;
            let path = path.ok_or_else(|| fail("map: expected the name of a filter, or attribute"))?;
            let values = items(state, value)?;
            values.iter().map(|item| attribute(item, &path, default.as_ref())).collect::<Result<_, _>>()?
        }
    };
    Ok(Generator::value(mapped))
}

fn select(state: &mut State<'_, '_>, arguments: &[Value], keep: bool, by_attribute: bool) -> Result<Value, Error> {
    let (value, mut arguments) = subject(arguments)?;
    let mut path = None;
    if by_attribute {
        let (first, rest) = arguments.split_first().ok_or_else(|| fail("expected an attribute"))?;
        (path, arguments) = (Some(first), rest);
    }
    let mut kept = Vec::new();
    for item in items(state, value)? {
        let tested = match path {
            Some(path) => attribute(&item, path, None)?,
            None => item.clone(),
        };
        let holds = match arguments.split_first() {
            None => tested.is_true(),
            Some((test, more)) => {
                let test = test.as_str().ok_or_else(|| fail("expected the name of a test"))?;
                state.perform_test(test, &[&[tested][..], more].concat())?
            }
        };
        if holds == keep {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}

fn groupby(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [path, default, case_sensitive] = bind(arguments, ["attribute", "default", "case_sensitive"])?;
    let path = path.ok_or_else(|| fail("groupby: expected an attribute"))?;
    let fold = KeyOf::new(None, case_sensitive.as_ref());
    let mut values = Vec::new();
    for item in items(state, value)? {
        let found = attribute(&item, &path, default.as_ref())?;
        values.push((fold.key(&found)?, (found, item)));
    }
    if values.is_empty() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, (found, item)) in sorted(state, values, false)? {
        match groups.last_mut() {
            Some((last, _, group)) if *last == key => group.push(item),
            _ => groups.push((key, found, vec![item])),
        }
    }
    let group =
        |(_, grouper, list): (Value, Value, Vec<Value>)| Value::from_object(Group { grouper, list: Value::from(list) });
    Ok(groups.into_iter().map(group).collect())
}

fn batch(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [size, fill] = bind(arguments, ["linecount", "fill_with"])?;
    let size = size_or(size.as_ref(), 0, "linecount")?;
    if size == 0 {
        return Err(fail("batch: linecount: expected at least 1"));
    }
    let values = items(state, value)?;
    let mut batches: Vec<Vec<Value>> = values.chunks(size).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (given(fill), batches.last_mut()) {
        pay(state, (size - last.len()).saturating_mul(24))?;
        last.resize(size, fill);
    }
    Ok(Generator::value(batches.into_iter().map(Value::from).collect()))
}

fn slice(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [slices, fill] = bind(arguments, ["slices", "fill_with"])?;
    let slices = size_or(slices.as_ref(), 0, "slices")?;
    if slices == 0 {
        return Err(fail("slice: slices: expected at least 1"));
    }
    let fill = given(fill);
    let values = items(state, value)?;
    pay(state, slices.saturating_mul(96))?;
    let (each, longer) = (values.len() / slices, values.len() % slices);
    let mut begin = 0;
    let mut parts = Vec::with_capacity(slices);
    for index in 0..slices {
        let end = begin + each + usize::from(index < longer);
        let mut part = values[begin..end].to_vec();
        if let (Some(fill), true) = (&fill, index >= longer) {
            part.push(fill.clone());
        }
        parts.push(Value::from(part));
        begin = end;
    }
    Ok(Generator::value(parts))
}

fn dictsort(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [case_sensitive, by, reverse] = bind(arguments, ["case_sensitive", "by", "reverse"])?;
    let by_value = match by.as_ref().map_or(Some("key"), Value::as_str) {
        Some("key") => false,
        Some("value") => true,
        _ => return Err(fail("dictsort: by: expected key or value")),
    };
    let fold = KeyOf::new(None, case_sensitive.as_ref());
    let mut values = Vec::new();
    for (key, held) in entries(state, value)? {
        values.push((fold.key(if by_value { &held } else { &key })?, Value::from(Tuple::from([key, held]))));
    }
    if values.is_empty() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let values = sorted(state, values, is_true(reverse.as_ref(), false))?;
    Ok(values.into_iter().map(|(_, pair)| pair).collect())
}

fn entries(state: &State<'_, '_>, value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    state.consume_fuel(value.len().unwrap_or(0) as u64)?;
    match value.kind() {
        ValueKind::Map if !is_namespace(value) => {
            Ok(value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten().collect())
        }
        kind => Err(fail(format!("expected a map, got {kind}"))),
    }
}

fn pairs(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, _) = subject(arguments)?;
    if value.is_undefined() {
        return Ok(Generator::value(Vec::new()));
    }
    let pairs = entries(state, value)?.into_iter().map(|(key, held)| Value::from(Tuple::from([key, held])));
    Ok(Generator::value(pairs.collect()))
}

/// Looks up an attribute that is not an item. Namespaces have some; strings and dictionaries have only methods, which a
/// template cannot use as values.
fn attr(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [name] = bind(arguments, ["name"])?;
    let name = name.ok_or_else(|| fail("attr: expected a name"))?;
    if is_namespace(value) || value.kind() == ValueKind::Plain { look_up(value, &name) } else { Ok(Value::UNDEFINED) }
}
