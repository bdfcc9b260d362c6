//! The schema of recipes says what the programs accept.

use std::path::Path;

use jsonschema::Validator;
use lake::recipe::{Overrides, Recipe};
use objective::parameter::Kind;
use objective::{Configured, METHODS, Parameters, Value};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use tests::command::recipes;

fn validator<T: schemars::JsonSchema>() -> Validator {
    jsonschema::validator_for(&serde_json::to_value(schemars::schema_for!(T)).unwrap()).unwrap()
}

/// Values within a parameter's range, on its bounds, and beyond it.
fn values(kind: Kind) -> BoxedStrategy<serde_json::Value> {
    let odd =
        select(vec![json!(-1), json!(0), json!(1), json!(1.5), json!(2e6), json!("none"), json!("1"), json!(true)]);
    let own = match kind {
        Kind::Number { .. } | Kind::Derived { .. } => {
            prop_oneof![0.0..=1.0, -10.0..=10.0].prop_map(|x| json!(x)).boxed()
        }
        Kind::Count { least, most, .. } => select(vec![json!(least), json!(most), json!(most + 1)]).boxed(),
        Kind::Choice { options, .. } => select(options).prop_map(|option| json!(option)).boxed(),
        Kind::Switch { .. } => any::<bool>().prop_map(|on| json!(on)).boxed(),
        Kind::Terms { .. } => select(vec![
            json!([{"name": "dpo", "beta": 0.2}, {"name": "sft", "weight": 0.5}]),
            json!([{"name": "dpo", "beta": -0.2}]),
            json!([{"name": "sum"}]),
            json!([{"weight": 1}]),
            json!([]),
        ])
        .boxed(),
    };
    prop_oneof![own, odd].boxed()
}

proptest! {
    #[test]
    fn a_parameter_is_valid_by_the_schema_where_it_is_one_to_the_method(
        (index, name, value) in (0..METHODS.len()).prop_flat_map(|index| {
            select(METHODS[index].parameters).prop_flat_map(move |parameter| {
                values(parameter.kind).prop_map(move |value| (index, parameter.name, value))
            })
        })
    ) {
        let recipe = json!({"name": METHODS[index].name, name: value});
        let accepted = match serde_json::from_value::<Configured>(recipe.clone()) {
            // That a value is without effect beside others is no matter of its range.
            Err(error) if error.to_string().contains("not used where") => return Ok(()),
            built => built.is_ok(),
        };
        prop_assert_eq!(validator::<Configured>().is_valid(&recipe), accepted, "{}", recipe);
    }
}

#[test]
fn what_is_written_reads_back_as_the_same_objective_and_is_valid_by_the_schema() {
    let schema = validator::<Configured>();
    for method in METHODS {
        let named = Parameters::from([("name".to_owned(), Value::from(method.name))]);
        let written = serde_json::to_value(Configured::try_from(named).unwrap()).unwrap();
        assert!(schema.is_valid(&written), "{written}");
        let read: Configured = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        assert_eq!(read.method().name, method.name);

        let unknown = json!({"name": method.name, "colour": 1});
        assert!(!schema.is_valid(&unknown), "{unknown}");
        let error = serde_json::from_value::<Configured>(unknown).unwrap_err().to_string();
        assert!(error.contains(&format!("{}.colour: unknown parameter", method.name)), "{error}");
    }
}

#[test]
fn recipes_that_come_with_the_project_and_what_runs_record_are_valid_by_the_schema() {
    let schema = validator::<Recipe>();
    let recipes = recipes();
    assert!(recipes.len() >= 4);
    for path in recipes {
        let table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        schema.validate(&serde_json::to_value(table).unwrap()).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let resolved = Recipe::resolve(Some(&path), &Overrides::default()).unwrap();
        schema.validate(&serde_json::to_value(resolved).unwrap()).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

#[test]
fn a_recipe_is_invalid_by_the_schema_where_the_program_refuses_it() {
    let schema = validator::<Recipe>();
    let accepts = |text: &str| {
        let fields: toml::Table = text.parse().unwrap();
        Recipe::resolve(None, &Overrides { fields, ..Overrides::default() }).is_ok()
    };
    for (text, expected) in [
        ("gamma = 0.0", true),
        ("gamma = 1.0", false),
        ("learning_rate = 0.0", false),
        ("warmup_ratio = 1.0", true),
        ("warmup_ratio = 1.1", false),
        ("clip_norm = 0.0", false),
        ("encoding = \"row_column\"", true),
        ("encoding = \"rows\"", false),
        ("hidden = 65536", true),
        ("hidden = 65537", false),
        ("steps = 0", false),
        ("seeds = 1000001", false),
        ("seed = -1", false),
        ("slippery = 1", false),
        ("slippery = true\nsuccess_rate = 1.0", true),
        ("slippery = true\nsuccess_rate = 1.1", false),
        ("reward_schedule = [1, -1, 0]", true),
        ("reward_schedule = [1, 0]", false),
        ("reward_schedule = [1, 0, 2e6]", false),
        ("target = \"soft\"", true),
        ("target = \"hard\"", false),
        ("schedule = \"step\"", false),
        ("optimizer = {name = \"sgd\", nesterov = true, momentum = 0.9}", true),
        ("optimizer = {name = \"sgd\", smoothing = 0.9}", false),
        ("optimizer = {name = \"adam\"}", false),
        ("method = [{name = \"dpo\", label = \"a-b\", beta = 1}]", true),
        ("method = [{name = \"dpo\", label = \"a b\"}]", false),
        ("method = [{name = \"spo\"}]", false),
        ("colour = 1", false),
    ] {
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(accepts(text), expected, "{text}");
        assert_eq!(schema.is_valid(&serde_json::to_value(table).unwrap()), expected, "{text}");
    }
}

#[test]
fn the_table_in_the_crates_documentation_is_the_registrys() {
    let example = escargot::CargoBuild::new().package("objective").example("methods").run().unwrap();
    let table = String::from_utf8(example.command().output().unwrap().stdout).unwrap();
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/objective/METHODS.md"));
    assert_eq!(kept.unwrap(), table, "cargo run -p objective --example methods > crates/objective/METHODS.md");
}
