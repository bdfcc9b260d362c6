//! Macros with additional arguments, as `varargs` and `kwargs`. The engine's own macros accept none.

use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple, from_args};
use minijinja::{Environment, Error, State, Value};

/// Name of the function that converts a macro whose last two parameters are `varargs` and `kwargs`.
pub(super) const VARIADIC: &str = "__variadic";

pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_function(VARIADIC, |inner: Value| {
        let names = inner.get_attr("arguments")?.try_iter()?.map(|name| name.to_string()).collect();
        Ok::<_, Error>(Value::from_object(Variadic { inner, names }))
    });
}

#[derive(Debug)]
struct Variadic {
    inner: Value,
    /// Parameters of the macro, including the last two.
    names: Vec<String>,
}

impl Object for Variadic {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
        let names = &self.names[..self.names.len().saturating_sub(2)];
        let (own, rest) = positional.split_at(positional.len().min(names.len()));
        let (mut passed, mut others) = (Vec::new(), Vec::new());
        for name in named.args() {
            let is_own = name == "caller" || names.iter().any(|own| own == name);
            (if is_own { &mut passed } else { &mut others }).push((name.to_owned(), named.get::<Value>(name)?));
        }
        passed.push(("varargs".to_owned(), Value::from(Tuple::from(rest.to_vec()))));
        passed.push(("kwargs".to_owned(), Value::from_pairs(others)));
        let mut arguments = own.to_vec();
        arguments.push(passed.into_iter().collect::<Kwargs>().into());
        self.inner.call(state, &arguments)
    }
}
