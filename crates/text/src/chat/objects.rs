//! Python objects that the engine lacks: generators, views of dictionaries, cyclers and joiners.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::fail;
use super::python_text::python_repr;

/// A generator, which yields its values once, as `map` and `select` return it.
#[derive(Debug)]
pub(super) struct Generator(Mutex<Vec<Value>>);

impl Generator {
    /// Creates a generator of these values.
    pub(super) fn value(values: Vec<Value>) -> Value {
        Value::from_object(Self(Mutex::new(values)))
    }

    /// The remaining values, which the generator keeps.
    pub(super) fn peek(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the remaining values out of the generator.
    pub(super) fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(self.take().into_iter()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<generator object>")
    }
}

/// A view of a dictionary, as `keys`, `values` and `items` return it.
#[derive(Debug)]
pub(super) struct DictView {
    /// Name of the view's type in Python.
    pub(super) name: &'static str,
    /// Values that the view yields.
    pub(super) values: Vec<Value>,
}

impl DictView {
    /// Creates a view of a dictionary.
    pub(super) fn value(map: &DynObject, name: &'static str) -> Value {
        let pairs = map.try_iter_pairs().into_iter().flatten();
        let values = match name {
            "dict_keys" => pairs.map(|(key, _)| key).collect(),
            "dict_values" => pairs.map(|(_, value)| value).collect(),
            _ => pairs.map(|(key, value)| Value::from(Tuple::from([key, value]))).collect(),
        };
        Value::from_object(Self { name, values })
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.values.len())
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = python_repr(&Value::from(self.values.clone())).map_err(|_| fmt::Error)?;
        write!(formatter, "{}({list})", self.name)
    }
}

/// A cycler, which yields its values in a circle.
#[derive(Debug)]
pub(super) struct Cycler {
    values: Vec<Value>,
    place: AtomicUsize,
}

impl Cycler {
    /// Creates a cycler, as `cycler(...)` does.
    ///
    /// # Errors
    ///
    /// An error for an empty list of values.
    pub(super) fn value(values: Vec<Value>) -> Result<Value, Error> {
        if values.is_empty() {
            return Err(fail("cycler: expected at least one value"));
        }
        Ok(Value::from_object(Self { values, place: AtomicUsize::new(0) }))
    }

    fn current(&self) -> Value {
        self.values[self.place.load(Ordering::Relaxed) % self.values.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "current" => Some(self.current()),
            "pos" => Some(Value::from(self.place.load(Ordering::Relaxed))),
            "items" => Some(Value::from(Tuple::from(self.values.clone()))),
            _ => None,
        }
    }

    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        match (method, arguments) {
            ("next", []) => {
                let current = self.current();
                let next = (self.place.load(Ordering::Relaxed) + 1) % self.values.len();
                self.place.store(next, Ordering::Relaxed);
                Ok(current)
            }
            ("reset", []) => {
                self.place.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// A joiner, which yields a separator at every call but the first.
#[derive(Debug)]
pub(super) struct Joiner {
    separator: Value,
    is_used: AtomicBool,
}

impl Joiner {
    /// Creates a joiner, as `joiner(separator)` does.
    pub(super) fn value(separator: Value) -> Value {
        Value::from_object(Self { separator, is_used: AtomicBool::new(false) })
    }
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn call(self: &Arc<Self>, _state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        if !arguments.is_empty() {
            return Err(fail("joiner: expected no arguments"));
        }
        let is_used = self.is_used.swap(true, Ordering::Relaxed);
        Ok(if is_used { self.separator.clone() } else { Value::from("") })
    }
}

/// A group of `groupby`: a tuple whose two values have names.
#[derive(Debug)]
pub(super) struct Group {
    /// Key that all values of the group share.
    pub(super) grouper: Value,
    /// Values of the group.
    pub(super) list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}
