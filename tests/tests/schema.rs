//! The schema of recipes says what the programs accept.

use std::path::Path;

use jsonschema::Validator;
use lake::experiment::recipe::{Overrides, Recipe};
use lake::study::Study;
use objective::parameter::Kind;
use objective::{Configured, METHODS, Method, Parameter, Parameters, Value};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use tests::command::{recipes, root};

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
            json!([{"name": "dpo", "weight": 0}, {"name": "sft", "weight": 0}]),
            json!([{"name": "dpo", "weight": 0}, {"name": "sft"}]),
            json!([]),
        ])
        .boxed(),
    };
    prop_oneof![own, odd].boxed()
}

/// Every parameter with its method's name; a method without parameters has none here.
fn parameters(methods: &[Method]) -> Vec<(&'static str, Parameter)> {
    methods
        .iter()
        .flat_map(|method| (method.parameters)().into_iter().map(|parameter| (method.name, parameter)))
        .collect()
}

proptest! {
    #[test]
    fn a_parameter_is_valid_by_the_schema_where_it_is_one_to_the_method(
        (method, name, value) in select(parameters(METHODS)).prop_flat_map(|(method, parameter)| {
            values(parameter.kind).prop_map(move |value| (method, parameter.name, value))
        })
    ) {
        let recipe = json!({"name": method, name: value});
        let accepted = match serde_json::from_value::<Configured>(recipe.clone()) {
            // What a value may be beside others is no matter of its range.
            Err(error)
                if [" where ", "correction_min =", "covariance_min =", "max_ratio ="]
                    .iter()
                    .any(|others| error.to_string().contains(others)) =>
            {
                return Ok(());
            }
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
fn a_method_without_parameters_has_a_schema_and_no_parameter_to_draw() {
    let bare = Method { name: "bare", parameters: Vec::new, ..METHODS[0] };
    assert_eq!(parameters(&[bare, METHODS[1]]).len(), (METHODS[1].parameters)().len());
    let generator = &mut schemars::SchemaGenerator::default();
    let table = objective::schema::table(generator, bare.name, bare.summary, &(bare.parameters)(), &[]);
    let schema = jsonschema::validator_for(table.as_value()).unwrap();
    assert!(schema.is_valid(&json!({"name": "bare"})));
    assert!(!schema.is_valid(&json!({"name": "bare", "beta": 1})));
}

#[test]
fn a_sum_whose_weights_are_all_zero_is_refused_by_the_schema_and_by_the_method() {
    for (weights, accepted) in [([0.0, 0.0], false), ([0.0, 1.0], true), ([0.5, 0.0], true)] {
        let [dpo, sft] = weights;
        let sum = json!({"name": "sum", "terms": [{"name": "dpo", "weight": dpo}, {"name": "sft", "weight": sft}]});
        assert_eq!(validator::<Configured>().is_valid(&sum), accepted, "{sum}");
        let built = serde_json::from_value::<Configured>(sum);
        assert_eq!(built.is_ok(), accepted);
        if let Err(error) = built {
            let expected = "sum.terms: expected at least one term with a weight above 0, as a sum without one trains \
                            nothing, got weights that are all 0";
            assert_eq!(error.to_string(), expected);
        }
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
fn studies_that_come_with_the_project_are_valid_by_the_schema_of_studies() {
    let schema = validator::<Study>();
    for name in ["reproduction", "reproduction-4x4"] {
        let text = std::fs::read_to_string(root().join(format!("experiments/{name}.toml"))).unwrap();
        let study: toml::Table = text.parse().unwrap();
        schema.validate(&serde_json::to_value(&study).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (field, value) in [("designs", 0.into()), ("design", 1.into()), ("recipe", "steps".into())] {
            let wrong: toml::Table = study.clone().into_iter().chain([(field.to_owned(), value)]).collect();
            assert!(!schema.is_valid(&serde_json::to_value(wrong).unwrap()), "{name}: {field}");
        }
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
        ("stage = [{method = {name = \"sft\"}}, {method = {name = \"dpo\", beta = 0.2}}]", true),
        ("stage = [{method = {name = \"dpo\", beta = -1}}]", false),
        ("stage = [{steps = 3}]", false),
        ("stage = []", false),
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
