//! The environment in which transformers renders chat templates, within bounds.

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, Output, State, Value};

use super::python_text::python_str;
use super::{bounds, comparison, filters, globals, predicates, text_methods, variadic};

/// Maximum nesting of running macros, loops and blocks.
const MAX_RECURSION: usize = 200;

/// Creates the environment without a template. `now` is the date that `strftime_now` formats.
pub(super) fn environment(now: DateTime) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_unknown_method_callback(text_methods::method);
    environment.set_formatter(|output: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value| {
        match value.as_str() {
            Some(text) => output.write_str(text)?,
            None => output.write_str(&python_str(state, value)?)?,
        }
        Ok(())
    });
    bounds::register(&mut environment);
    comparison::register(&mut environment);
    filters::register(&mut environment);
    globals::register(&mut environment, now);
    predicates::register(&mut environment);
    variadic::register(&mut environment);
    Ok(environment)
}
