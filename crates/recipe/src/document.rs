//! The defaults of a recipe as a commented TOML file.

use toml::{Table, Value};

use crate::declaration::{Declaration, Field};
use crate::kind::Kind;

/// Columns of a comment.
const COLUMNS: usize = 118;

/// Every field with its help, its allowed values and its default, as a recipe. Fields without a default are comments.
pub fn document(declaration: &Declaration) -> String {
    let is_table = |field: &&Field| field.default.as_ref().is_some_and(Value::is_table);
    let (tables, values): (Vec<_>, Vec<_>) =
        declaration.fields().iter().filter(|field| !is_listed(field)).partition(is_table);
    let values = values.into_iter().map(|field| {
        let name = &field.name;
        let mark = if field.unused { "# " } else { "" };
        let line = field.default.as_ref().map_or(format!("# {name} ="), |default| format!("{mark}{name} = {default}"));
        format!("{}{line}\n", comment(field))
    });
    let tables = tables.into_iter().map(|field| {
        let table = field.default.as_ref().and_then(Value::as_table).map(Table::to_string).unwrap_or_default();
        format!("{}[{}]\n{table}", comment(field), field.name)
    });
    values.chain(tables).collect::<Vec<_>>().join("\n")
}

/// Whether the field is a list of tables, which a TOML file has after all other fields.
fn is_listed(field: &Field) -> bool {
    matches!(&field.kind, Kind::List { items, .. } if matches!(**items, Kind::Table { .. } | Kind::Named(_)))
}

fn comment(field: &Field) -> String {
    let allowed = match &field.kind {
        Kind::Named(names) | Kind::Names(names) => format!(" One of {}.", names.join(", ")),
        kind @ (Kind::Number { .. } | Kind::Count { .. }) => {
            format!(" Allowed: {}.", kind.allowed(&field.name))
        }
        _ => String::new(),
    };
    let text = format!("{}{allowed}", plain(&field.help));
    textwrap::wrap(&text, COLUMNS).into_iter().map(|line| format!("# {line}\n")).collect()
}

/// A doc comment as one paragraph.
pub(crate) fn plain(help: &str) -> String {
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}
