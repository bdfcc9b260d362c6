//! The language, on a small recipe with stages.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use objective::Configured;
use recipe::layers::read;
use recipe::{Declaration, MethodPlace, Refusal, assign, difference, document};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Table;
use training::{OptimizerSettings, Shape};

/// A recipe.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// Name of the model,
    /// or its folder.
    #[schemars(extend("default" = "small"))]
    model: String,
    /// Number of threads.
    #[schemars(range(max = 64), extend("default" = 0))]
    threads: u64,
    /// Share of the steps.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.5))]
    share: f64,
    /// Limit of the gradient's norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0, "x-infinite" = true))]
    clip: Option<f64>,
    /// Schedule of the learning rate.
    #[schemars(schema_with = "recipe::schema::names::<Shape>", extend("default" = "constant"))]
    schedule: Shape,
    /// Rewards.
    #[schemars(inner(range(min = -1.0, max = 1.0)), extend("default" = [0.0, 1.0]))]
    rewards: [f64; 2],
    /// Optimizer.
    #[schemars(schema_with = "recipe::schema::optimizer", extend("default" = { "name": "sgd" }))]
    optimizer: OptimizerSettings,
    /// Number of steps of each stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-instead-of" = "epochs"))]
    steps: Option<u64>,
    /// Number of epochs of each stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-instead-of" = "steps"))]
    epochs: Option<f64>,
    /// Stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stage: Vec<Stage>,
}

/// A stage.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Stage {
    /// Number of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-instead-of" = "epochs"))]
    steps: Option<u64>,
    /// Number of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-instead-of" = "steps"))]
    epochs: Option<f64>,
    /// Method.
    method: Configured,
}

fn declaration() -> Declaration {
    Declaration::of::<Recipe>()
}

const FILE: &str = r#"
    share = 0.25
    [[stage]]
    method = { name = "sft" }
    steps = 7
    [[stage]]
    method = { name = "dpo", beta = 0.2 }
"#;

fn places() -> [MethodPlace; 2] {
    let place = |index: usize, name: &str| MethodPlace {
        path: format!("stage.{index}.method"),
        name: name.to_owned(),
        label: name.to_owned(),
    };
    [place(0, "sft"), place(1, "dpo")]
}

fn assigned(assignments: &[&str]) -> Result<Table, Refusal> {
    let mut table = FILE.parse().unwrap();
    assignments.iter().try_for_each(|assignment| assign(&mut table, &declaration(), &places(), assignment))?;
    Ok(table)
}

#[track_caller]
fn refused(assignment: &str, message: &str) {
    assert_eq!(assigned(&[assignment]).unwrap_err().to_string(), message);
}

#[test]
fn defaults_help_ranges_and_order_come_from_the_struct_alone() {
    let declaration = declaration();
    let names: Vec<_> = declaration.fields().iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names[..5], ["model", "threads", "share", "clip", "schedule"]);
    let recipe: Recipe = read(declaration.defaults()).unwrap();
    assert_eq!(
        (recipe.model.as_str(), recipe.share, recipe.clip, recipe.optimizer.name()),
        ("small", 0.5, None, "sgd")
    );
    let text = document::document(&declaration);
    assert!(text.starts_with("# Name of the model, or its folder.\nmodel = \"small\"\n"), "{text}");
    assert!(text.contains("# Share of the steps. Allowed: a number, 0 <= share < 1.\nshare = 0.5\n"), "{text}");
    assert!(text.contains("\n# clip =\n") && text.ends_with("[optimizer]\nname = \"sgd\"\n"), "{text}");
    assert_eq!(text.parse::<Table>().unwrap(), declaration.defaults());
}

#[test]
fn a_value_out_of_its_range_or_of_another_kind_is_refused_with_the_field_what_is_allowed_and_what_was_given() {
    for (text, message) in [
        ("threads = 65", "threads: expected 0 to 64, got 65"),
        ("threads = -1", "threads: expected 0 to 64, got -1"),
        ("threads = \"all\"", "threads: expected 0 to 64, got \"all\""),
        ("share = 1.0", "share: expected a number, 0 <= share < 1, got 1"),
        ("share = nan", "share: expected a number, 0 <= share < 1, got NaN"),
        ("clip = 0", "clip: expected a number, 0 < clip, or inf, got 0"),
        ("schedule = \"cosin\"", "schedule: expected one of constant, cosine, linear, got cosin; did you mean cosine?"),
        ("rewards = [1]", "rewards: expected a list of length 2, got one of length 1"),
        ("rewards = [1, 2]", "rewards[1]: expected a number, -1 <= rewards <= 1, got 2"),
        ("optimizer = \"sgd\"", "optimizer: expected a table with a name, got \"sgd\""),
        ("[[stage]]\nsteps = 0", "stage[0].steps: expected at least 1, got 0"),
    ] {
        let table = text.parse().unwrap();
        assert_eq!(declaration().check(&table).unwrap_err().to_string(), message);
    }
    let allowed = "clip = inf\nthreads = 64\nshare = 0\nschedule = \"linear\"\n[optimizer]\nname = \"adamw\"";
    assert_eq!(declaration().check(&allowed.parse().unwrap()), Ok(()));
}

#[test]
fn an_unknown_field_is_refused_with_the_names_that_exist_and_the_nearest_one() {
    let message = |text: &str| declaration().check(&text.parse().unwrap()).unwrap_err().to_string();
    let unknown = message("thread = 1");
    assert!(unknown.starts_with("thread: expected a field: one of "), "{unknown}");
    assert!(unknown.ends_with("got \"thread\"; did you mean threads?"), "{unknown}");
    assert_eq!(
        message("[[stage]]\nmodel = \"a\""),
        "stage[0].model: expected the field above the first [[stage]], as it holds for every stage, got it in a stage"
    );
    assert_eq!(
        message("[[stage]]\nstep = 1"),
        "stage[0].step: expected a field: one of epochs, method, steps, got \"step\"; did you mean steps?"
    );
}

#[test]
fn a_name_without_a_dot_is_a_field_of_stages_or_a_methods_parameter_or_a_field_of_the_recipe() {
    let table = assigned(&["epochs=2", "beta=0.5", "model=12", "share=0", "clip=inf"]).unwrap();
    assert_eq!(table["epochs"].as_float(), Some(2.0));
    assert!(table["stage"][0].get("steps").is_none() && table.get("steps").is_none());
    assert_eq!(table["stage"][1]["method"]["beta"].as_float(), Some(0.5));
    // A text field takes its text as it is.
    assert_eq!(table["model"].as_str(), Some("12"));
    assert_eq!((table["share"].as_float(), table["clip"].as_float()), (Some(0.0), Some(f64::INFINITY)));
}

#[test]
fn a_dotted_key_leads_to_a_stage_a_method_by_its_name_or_a_parameter_of_the_default_optimizer() {
    let table =
        assigned(&["stage.0.epochs=3", "stage.1.method.beta=0.4", "dpo.label_smoothing=0.1", "optimizer.momentum=0.9"]);
    let table = table.unwrap();
    assert_eq!(table["stage"][0].get("steps"), None);
    assert_eq!(table["stage"][0]["epochs"].as_float(), Some(3.0));
    let method = &table["stage"][1]["method"];
    assert_eq!((method["beta"].as_float(), method["label_smoothing"].as_float()), (Some(0.4), Some(0.1)));
    assert_eq!(table["optimizer"], toml::Value::Table("name = \"sgd\"\nmomentum = 0.9".parse().unwrap()));
    assert_eq!(assigned(&["optimizer=adamw"]).unwrap()["optimizer"]["name"].as_str(), Some("adamw"));
}

#[test]
fn an_assignment_that_leads_nowhere_is_refused() {
    refused("steps", "assignment: expected KEY=VALUE, such as steps=10 or dpo.beta=0.2, got \"steps\"");
    refused("stage.2.steps=1", "stage.2: expected 0 to 1, got \"2\"");
    refused(
        "stage.0.step=1",
        "stage.0.step: expected a field: one of epochs, method, steps, got \"step\"; did you mean steps?",
    );
    refused(
        "dop.beta=1",
        "dop.beta: expected a chosen method before the dot (sft, dpo), or a field of the recipe, got \"dop\"; did you \
         mean dpo?",
    );
    refused("share.a=1", "share: expected a table, as a dot leads into it, got 0.25");
    let misspelled = assigned(&["betta=1"]).unwrap_err().to_string();
    assert!(
        misspelled.ends_with("or a parameter of a chosen method, got \"betta\"; did you mean beta?"),
        "{misspelled}"
    );
    let mut table = FILE.parse().unwrap();
    let twice = places().map(|place| MethodPlace { name: "dpo".to_owned(), label: "dpo".to_owned(), ..place });
    let several = assign(&mut table, &declaration(), &twice, "beta=1").unwrap_err().to_string();
    assert_eq!(
        several,
        "beta: expected one of stage.0.method.beta, stage.1.method.beta where 2 methods are chosen, got \"beta\""
    );
}

#[test]
fn the_first_difference_is_named_with_both_values() {
    let [one, other] = [assigned(&[]).unwrap(), assigned(&["beta=0.5"]).unwrap()];
    let differs = difference::first(&one, &other);
    assert_eq!(differs, Some(("stage.1.method.beta".to_owned(), "0.2".to_owned(), "0.5".to_owned())));
    assert_eq!(difference::first(&one, &one), None);
}

#[test]
fn the_changes_of_a_resolved_recipe_are_what_the_file_says_and_resolve_to_it_again() {
    let resolve = |table: Table| {
        let mut layers = declaration().defaults();
        declaration().overlay(&mut layers, table);
        read::<Recipe>(layers).unwrap()
    };
    let file: Table = FILE.parse().unwrap();
    let resolved = Table::try_from(resolve(file.clone())).unwrap();
    assert_eq!(resolved["stage"][1]["method"]["label_smoothing"].as_float(), Some(0.0));
    let changes = difference::changes(&declaration(), &resolved, &|_| Table::new());
    assert_eq!(changes, file);
    assert_eq!(Table::try_from(resolve(changes)).unwrap(), resolved);
    // A parameter that follows another one is kept where it does not.
    let text = "[[stage]]\nmethod = { name = \"ift\", lambda = 0.4, lambda_min = 0.2 }";
    let apart = Table::try_from(resolve(text.parse().unwrap())).unwrap();
    let changes = difference::changes(&declaration(), &apart, &|_| Table::new());
    assert_eq!(Table::try_from(resolve(changes)).unwrap(), apart);
}
