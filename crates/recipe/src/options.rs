//! Options of a command line, one for each declared field of a group.

use std::marker::PhantomData;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::{Table, Value};

use crate::declaration::{Declaration, Field};
use crate::document::plain;
use crate::kind::Kind;

/// Fields of a resolved recipe that `--print` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Print {
    /// Every field.
    All,
    /// Fields that differ from the defaults.
    Changes,
}

/// Name of the recipe in errors, as the owner of its fields.
const OWNER: &str = "recipe";

/// A choice of a declaration's groups.
pub trait Groups {
    /// The names of the groups.
    const GROUPS: &'static [&'static str];

    /// Declaration of the fields.
    fn declaration() -> &'static Declaration;
}

/// Fields given as options of a command line, for use with `#[command(flatten)]`.
#[derive(Debug)]
pub struct Options<G> {
    /// The given fields.
    pub fields: Table,
    groups: PhantomData<G>,
}

impl<G: Groups> Options<G> {
    fn declared() -> impl Iterator<Item = &'static Field> {
        let is_chosen = |field: &&Field| field.group.as_deref().is_some_and(|group| G::GROUPS.contains(&group));
        G::declaration().fields().iter().filter(is_chosen)
    }
}

impl<G: Groups> Args for Options<G> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::declared().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<G: Groups> FromArgMatches for Options<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |field: &'static Field| {
            let values: Vec<_> = matches.try_get_many::<Value>(&field.name).ok()??.cloned().collect();
            let value = match (&field.kind, values.as_slice()) {
                (Kind::List { .. }, _) => Value::Array(values),
                (_, [.., value]) => value.clone(),
                (_, []) => return None,
            };
            Some((field.name.clone(), value))
        };
        Ok(Self { fields: Self::declared().filter_map(given).collect(), groups: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.fields.extend(Self::from_arg_matches(matches)?.fields);
        Ok(())
    }
}

/// The option of a field.
fn argument(field: &'static Field) -> Arg {
    let text = plain(&field.help);
    let text = text.strip_suffix('.').unwrap_or(&text);
    let default = field.default.as_ref().map(|default| match default {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        Value::Table(table) => table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        value => value.to_string(),
    });
    let default = default.map_or(String::new(), |default| format!(" [default: {default}]"));
    let argument = Arg::new(&*field.name).long(&*field.option).help(format!("{text}{default}"));
    let argument = match &field.group {
        Some(group) => argument.help_heading(&**group),
        None => argument,
    };
    let placeholder = field.placeholder.as_deref();
    let parse =
        |kind: &'static Kind| move |text: &str| kind.parse(&field.name, text).map_err(|refusal| refusal.within(OWNER));
    match &field.kind {
        Kind::Switch => argument
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(parse(&field.kind)),
        Kind::Names(names) | Kind::Named(names) => {
            let names = names.iter().map(String::as_str).collect::<Vec<_>>();
            let typed = clap::builder::TypedValueParser::map(PossibleValuesParser::new(names), |name| {
                field.kind.parse(&field.name, &name).unwrap_or(Value::String(name))
            });
            argument.value_name(placeholder.unwrap_or("NAME")).value_parser(typed)
        }
        Kind::List { items, .. } => argument
            .value_name(placeholder.unwrap_or("LIST"))
            .action(ArgAction::Append)
            .value_delimiter(',')
            .allow_hyphen_values(true)
            .value_parser(parse(items)),
        Kind::Number { .. } => argument
            .value_name(placeholder.unwrap_or("NUMBER"))
            .allow_negative_numbers(true)
            .value_parser(parse(&field.kind)),
        Kind::Count { .. } => argument
            .value_name(placeholder.unwrap_or("COUNT"))
            .allow_negative_numbers(true)
            .value_parser(parse(&field.kind)),
        _ => argument.value_name(placeholder.unwrap_or("VALUE")).value_parser(parse(&field.kind)),
    }
}
