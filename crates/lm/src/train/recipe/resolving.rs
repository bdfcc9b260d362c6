//! Resolution of a recipe: the declared defaults, a file, and assignments, each replacing fields of the one before.

use std::path::Path;
use std::sync::LazyLock;

use jiff::civil::{Date, DateTime};
use objective::{Configured, Parameters};
use recipe::refusal::{MethodError, explained};
use recipe::{Declaration, MethodPlace, assign, declaration, difference, layers};
use serde_json::Value as Json;
use toml::{Table, Value};
use training::OptimizerSettings;

use super::{Keeping, REFERENCE, Recipe, STAGE, Stage, fail};
use crate::error::{LmError, refuse};

/// The table of adapters.
const LORA: &str = "lora";
/// The method of a stage.
const METHOD: &str = "method";
/// The optimizer of a stage.
const OPTIMIZER: &str = "optimizer";
/// The date for chat templates.
const DATE: &str = "date";
/// The number of the engine's threads.
const THREADS: &str = "threads";
/// Parameters of methods that have other defaults here than in the registry: the method, the parameter and the value.
/// No embedding that IFT's second forward pass reads has a gradient, as in the code of IFT's authors.
const PRESETS: [(&str, &str, &str); 1] = [("ift", "freeze_embeddings", "all")];

/// The declared fields of recipes. Those of stages are fields of the recipe too.
static DECLARATION: LazyLock<Declaration> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Recipe);
    let stage = schema.as_value().pointer("/$defs/Stage/properties").and_then(Json::as_object).cloned();
    if let Some(fields) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        fields.extend(stage.into_iter().flatten());
    }
    // Every field has a default, or may stand above the stages.
    schema.insert("required".to_owned(), Json::from(vec!["model", STAGE]));
    if let Some(stage) = schema.pointer_mut("/$defs/Stage").and_then(Json::as_object_mut) {
        stage.remove("required");
    }
    let order: Vec<_> = [declaration::names::<Recipe>(), declaration::names::<Stage>()].concat();
    Declaration::new(schema, &order)
});

/// The declared fields of recipes: names, help, ranges, defaults and JSON schema.
pub fn declaration() -> &'static Declaration {
    &DECLARATION
}

/// Date for chat templates in the default recipe, so that answers do not depend on the day if there is no recipe.
///
/// # Errors
///
/// [`LmError::Recipe`] for a default that is no date.
pub fn default_now() -> Result<DateTime, LmError> {
    let date = DECLARATION.field(DATE).and_then(|field| field.default.as_ref()?.as_str()).unwrap_or_default();
    let date: Date = date.parse().map_err(|error| fail("default recipe", error))?;
    Ok(date.at(0, 0, 0, 0))
}

/// Parameters of a method that have other defaults here than in the registry.
fn preset(method: &str) -> Table {
    let own = PRESETS.iter().filter(|(name, ..)| *name == method);
    own.map(|(_, parameter, value)| ((*parameter).to_owned(), (*value).into())).collect()
}

impl Recipe {
    /// The defaults, their fields replaced by those of a file, and these by assignments `key=value`, where a key may
    /// lead into the recipe by dots: `learning_rate=1e-6` for every stage, `stage.0.method.beta=0.2` for one,
    /// `beta=0.2` for the only method that has such a parameter.
    ///
    /// # Errors
    ///
    /// [`LmError::Recipe`] naming the file, the field, what is allowed and what was given.
    pub fn resolve(file: &Path, assignments: &[String]) -> Result<Self, LmError> {
        let origin = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|source| LmError::File { path: file.to_owned(), source })?;
        let table = layers::parse(&text).map_err(|error| fail(&origin, error))?;
        Self::resolve_table(&origin, table, assignments)
    }

    fn resolve_table(origin: &str, mut table: Table, assignments: &[String]) -> Result<Self, LmError> {
        renamed(&table).map_err(|error| fail(origin, error))?;
        for assignment in assignments {
            let places = places(&table);
            assign(&mut table, &DECLARATION, &places, assignment).map_err(|error| fail("--set", error))?;
        }
        renamed(&table).map_err(|error| fail(origin, error))?;
        DECLARATION.check(&table).map_err(|error| fail(origin, error))?;
        let stages = match table.remove(STAGE) {
            Some(Value::Array(stages)) if !stages.is_empty() => stages,
            _ => return Err(fail(origin, refuse(STAGE, "at least one [[stage]] with a method and its data", "none"))),
        };
        let names_reference = table.contains_key(REFERENCE);
        let lora = table.get(LORA).and_then(Value::as_table).map(|lora| lora.contains_key("adapter"));
        let mut fields = DECLARATION.defaults();
        DECLARATION.overlay(&mut fields, table);
        let (shared, mut resolved): (Table, Table) =
            fields.into_iter().partition(|(name, _)| DECLARATION.is_of_stages(name));
        let stages = stages.into_iter().enumerate().filter_map(|(index, stage)| {
            let Value::Table(stage) = stage else { return None };
            let mut fields = shared.clone();
            if let Some(continues) = lora.filter(|_| !names_reference) {
                // The reference is the policy as the stage finds it: without its adapters while they add nothing yet.
                let keeping = if index == 0 && !continues { Keeping::Base } else { Keeping::Hold };
                fields.insert(REFERENCE.to_owned(), keeping.to_string().into());
            }
            DECLARATION.overlay(&mut fields, stage);
            if let Some(Value::Table(method)) = fields.get_mut(METHOD) {
                let name = method.get("name").and_then(Value::as_str).unwrap_or_default();
                preset(name).into_iter().for_each(|(name, value)| _ = method.entry(name).or_insert(value));
            }
            Some(Value::Table(fields))
        });
        let stages: Vec<_> = stages.collect();
        stages
            .iter()
            .enumerate()
            .try_for_each(|(index, stage)| named(index, stage))
            .map_err(|error| fail(origin, error))?;
        resolved.insert(STAGE.to_owned(), Value::Array(stages));
        if resolved.get(THREADS).and_then(Value::as_integer) == Some(0) {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as i64);
            resolved.insert(THREADS.to_owned(), cores.into());
        }
        let recipe: Self = layers::read(resolved).map_err(|error| fail(origin, error))?;
        recipe.validate().map_err(|error| fail(origin, error))?;
        Ok(recipe)
    }

    /// The first field in which this recipe differs from another one: its path, and the two values.
    ///
    /// # Errors
    ///
    /// [`LmError::Recipe`] for a recipe that cannot be written.
    pub fn difference(&self, other: &Self) -> Result<Option<(String, String, String)>, LmError> {
        Ok(difference::first(&self.table()?, &other.table()?))
    }

    /// The fields that differ from the defaults: a recipe that resolves to this one.
    ///
    /// # Errors
    ///
    /// [`LmError::Recipe`] for a recipe that cannot be written.
    pub fn changes(&self) -> Result<Table, LmError> {
        Ok(difference::changes(&DECLARATION, &self.table()?, &preset))
    }

    fn table(&self) -> Result<Table, LmError> {
        Table::try_from(self).map_err(|error| fail("recipe", error))
    }
}

/// Checks the method and the optimizer of a stage, to suggest names for unknown ones.
fn named(index: usize, stage: &Value) -> Result<(), String> {
    let parameters = |name| stage.get(name).and_then(|table| table.clone().try_into::<Parameters>().ok());
    let method = || Ok(parameters(METHOD).map(Configured::try_from).transpose().map(drop)?);
    let optimizer = || Ok(parameters(OPTIMIZER).map(OptimizerSettings::try_from).transpose().map(drop)?);
    let refuse = |name, error: MethodError| format!("{STAGE}[{index}].{name}: {}", explained(&error));
    method().map_err(|error| refuse(METHOD, error))?;
    optimizer().map_err(|error| refuse(OPTIMIZER, error))
}

/// The method of each stage, for assignments.
fn places(table: &Table) -> Vec<MethodPlace> {
    let stages = table.get(STAGE).and_then(Value::as_array).into_iter().flatten().enumerate();
    let place = |(index, stage): (usize, &Value)| {
        let name = stage.get(METHOD)?.get("name")?.as_str()?.to_owned();
        Some(MethodPlace { path: format!("{STAGE}.{index}.{METHOD}"), label: name.clone(), name })
    };
    stages.filter_map(place).collect()
}

/// Refuses the old name of a field, with the new one.
fn renamed(whole: &Table) -> Result<(), LmError> {
    const OVERLONG: &str = "overlong";
    let replaced = |place: String| {
        let allowed = "invalid = \"error\" or \"skip\", which holds for all records that cannot be learnt from";
        Err(refuse(&place, allowed, OVERLONG))
    };
    if whole.contains_key(OVERLONG) {
        return replaced(OVERLONG.to_owned());
    }
    let stages = whole.get(STAGE).and_then(Value::as_array);
    for (index, stage) in stages.into_iter().flatten().enumerate() {
        if stage.as_table().is_some_and(|stage| stage.contains_key(OVERLONG)) {
            return replaced(format!("{STAGE}[{index}].{OVERLONG}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        model = "folder"
        learning_rate = 1e-5
        [[stage]]
        method = { name = "sft" }
        data = [{ path = "a.jsonl" }]
        [[stage]]
        method = { name = "dpo", beta = 0.2 }
        learning_rate = 1e-6
        steps = 7
        data = [{ path = "b.jsonl", weight = 2.0 }, { path = "c.parquet" }]
    "#;

    fn resolve(file: &str, assignments: &[&str]) -> Result<Recipe, String> {
        let assignments: Vec<_> = assignments.iter().map(|assignment| (*assignment).to_owned()).collect();
        Recipe::resolve_table("run.toml", file.parse().unwrap(), &assignments).map_err(|error| error.to_string())
    }

    #[test]
    fn stages_take_what_stands_above_them_unless_they_say_otherwise() {
        let recipe = resolve(FILE, &[]).unwrap();
        let [first, second] = &recipe.stage[..] else { panic!("two stages") };
        assert_eq!((first.learning_rate, second.learning_rate), (1e-5, 1e-6));
        assert_eq!((first.epochs, first.steps, second.epochs, second.steps), (Some(1.0), None, None, Some(7)));
        assert_eq!((first.steps(130), second.steps(130)), (3, 7));
        assert_eq!(second.optimizer.name(), "rmsprop");
    }

    #[test]
    fn ift_freezes_what_it_reads_as_its_authors_do_unless_told_otherwise() {
        let freeze = |assignment| {
            let recipe = resolve(FILE, &[assignment]).unwrap();
            recipe.stage[0].method.objective().parameters()["freeze_embeddings"].clone()
        };
        assert_eq!(freeze("stage.0.method={ name = \"ift\" }"), "all".into());
        assert_eq!(freeze("stage.0.method={ name = \"ift\", freeze_embeddings = \"none\" }"), "none".into());
    }

    #[test]
    fn a_resolved_recipe_reads_as_itself() {
        let recipe = resolve(FILE, &["clip_norm=inf", "stage.1.data.0.limit=5"]).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        let again = resolve(&text, &[]).unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), text);
        assert_eq!(again.stage[1].data[0].limit, Some(5));
        assert_eq!(again.stage[0].clip_norm, f64::INFINITY);
    }

    #[test]
    fn the_reference_is_the_model_without_adapters_while_they_add_nothing() {
        let references = |assignments: &[&str]| -> Result<Vec<_>, String> {
            Ok(resolve(FILE, assignments)?.stage.iter().map(|stage| stage.reference).collect())
        };
        let [rank, alpha] = ["lora.rank=4", "lora.alpha=8"];
        assert_eq!(references(&[]), Ok(vec![Keeping::Cache; 2]));
        assert_eq!(references(&[rank, alpha]), Ok(vec![Keeping::Base, Keeping::Hold]));
        assert_eq!(references(&["lora.adapter=folder"]), Ok(vec![Keeping::Hold; 2]));
        assert_eq!(references(&[rank, alpha, "reference=base"]), Ok(vec![Keeping::Base; 2]));
        assert_eq!(references(&[rank, alpha, "stage.0.reference=cache"]), Ok(vec![Keeping::Cache, Keeping::Hold]));
        let refused = "run.toml: stage[0].reference: expected cache or hold, as there are no adapters, got base";
        assert_eq!(references(&["reference=base"]), Err(refused.to_owned()));
        let missing = references(&[alpha]).unwrap_err();
        assert!(missing.starts_with("run.toml: lora: rank: expected a rank, or adapter"), "{missing}");
        let freeze = "stage.0.method={ name = \"ift\", freeze_embeddings = \"none\" }";
        let frozen = references(&[rank, alpha, freeze]).unwrap_err();
        assert!(frozen.contains("stage[0].method: expected freeze_embeddings = \"all\""), "{frozen}");
        // What was resolved is a recipe, and the same one.
        let text = toml::to_string(&resolve(FILE, &[rank, alpha]).unwrap()).unwrap();
        assert_eq!(toml::to_string(&resolve(&text, &[]).unwrap()).unwrap(), text);
    }

    #[test]
    fn assignments_hold_for_every_stage_or_for_one() {
        let recipe = resolve(
            FILE,
            &[
                "learning_rate=1e-4",
                "steps=9",
                "stage.1.method.beta=0.5",
                "model=other",
                "optimizer={ name = \"sgd\" }",
            ],
        )
        .unwrap();
        assert_eq!(recipe.model, "other");
        for stage in &recipe.stage {
            assert_eq!((stage.learning_rate, stage.steps, stage.epochs), (1e-4, Some(9), None));
            assert_eq!(stage.optimizer.name(), "sgd");
        }
        assert_eq!(recipe.stage[1].method.objective().parameters()["beta"], 0.5.into());
    }

    #[test]
    fn the_short_name_of_a_parameter_reaches_the_only_method_that_has_it() {
        let beta = |assignment| {
            let recipe = resolve(FILE, &[assignment]).unwrap();
            recipe.stage[1].method.objective().parameters()["beta"].clone()
        };
        assert_eq!(beta("beta=0.7"), 0.7.into());
        assert_eq!(beta("dpo.beta=0.6"), 0.6.into());
    }

    #[test]
    fn the_changes_of_a_recipe_are_short_and_resolve_to_the_same_recipe() {
        for assignments in [
            &[][..],
            &["lora.rank=4", "lora.alpha=8"],
            &["stage.0.method={ name = \"ift\" }"],
            &["stage.0.method={ name = \"ift\", freeze_embeddings = \"none\" }", "steps=3", "threads=2"],
        ] {
            let recipe = resolve(FILE, assignments).unwrap();
            let changes = recipe.changes().unwrap();
            assert!(!changes.contains_key("dtype") && !changes.contains_key("device"), "{changes}");
            let again = resolve(&changes.to_string(), &[]).unwrap();
            assert_eq!(again.difference(&recipe).unwrap(), None, "{changes}");
        }
    }

    #[test]
    fn every_default_and_every_recipe_that_resolves_is_valid_by_the_schema() {
        let defaults = recipe::document::document(declaration());
        assert_eq!(defaults.parse::<Table>().unwrap(), declaration().defaults());
        declaration().check(&resolve(FILE, &["clip_norm=inf"]).unwrap().table().unwrap()).unwrap();
        let schema = declaration().schema().as_value();
        assert_eq!(schema["properties"]["learning_rate"], schema["$defs"]["Stage"]["properties"]["learning_rate"]);
        assert_eq!(schema["properties"]["batch"]["maximum"], 1 << 20);
        assert_eq!(schema["required"], serde_json::json!(["model", "stage"]));
    }

    #[track_caller]
    fn refused(assignments: &[&str], message: &str) {
        assert_eq!(resolve(FILE, assignments).unwrap_err(), message);
    }

    #[test]
    fn what_is_refused_is_named() {
        refused(&["batch=0"], "--set: batch: expected 1 to 1048576, got 0");
        refused(&["stage.1.batch=0"], "--set: stage.1.batch: expected 1 to 1048576, got 0");
        refused(&["batch=1048577"], "--set: batch: expected 1 to 1048576, got 1048577");
        refused(&["micro_batch=9000000000"], "--set: micro_batch: expected 1 to 1048576, got 9000000000");
        refused(&["threads=4097"], "--set: threads: expected 0 to 4096, got 4097");
        refused(&["steps=9000000000000"], "--set: steps: expected 1 to 1099511627776, got 9000000000000");
        refused(&["learning_rate=-1"], "--set: learning_rate: expected a number, 0 < learning_rate, got -1");
        refused(&["warmup_ratio=2"], "--set: warmup_ratio: expected a number, 0 <= warmup_ratio <= 1, got 2");
        refused(&["lora.rank=0"], "--set: lora.rank: expected 1 to 1048576, got 0");
        refused(
            &["dtype=float16"],
            "run.toml: dtype: expected float32 or bfloat16, as small gradients vanish in float16, got float16",
        );
        refused(
            &["nonsense"],
            "--set: assignment: expected KEY=VALUE, such as steps=10 or dpo.beta=0.2, got \"nonsense\"",
        );
        refused(&["stage.5.steps=1"], "--set: stage.5: expected 0 to 1, got \"5\"");
        let ppo = resolve(FILE, &["stage.0.method={ name = \"ppo\" }"]).unwrap_err();
        assert!(ppo.starts_with("run.toml: stage[0].method: expected a method that learns from data"), "{ppo}");
        assert_eq!(resolve(FILE, &["epochs=1e300"]).unwrap().stage[0].steps(130), 1 << 40);
        for (assignment, part) in [
            ("stage.0.method.beta=1", "sft.beta: unknown parameter"),
            ("stage.0.colour=1", "--set: stage.0.colour: expected a field: one of "),
            ("learnig_rate=1", "did you mean learning_rate?"),
            ("betta=1", "did you mean beta?"),
            ("stage.1.method.betta=1", "run.toml: stage[1].method: dpo.betta: unknown parameter; allowed: beta, "),
            ("stage.1.method.betta=1", "; did you mean beta?"),
            ("stage.1.method.name=simpoo", "; did you mean simpo?"),
            (
                "optimizer=sdg",
                "stage[0].optimizer: optimizer: expected one of rmsprop, adamw, sgd, got \"sdg\"; did you",
            ),
            ("packing=loose", "--set: packing: expected one of padded, packed, got loose"),
        ] {
            let error = resolve(FILE, &[assignment]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let within = |text: &str| {
            let refused = resolve(&format!("{text}\n{FILE}"), &[]).unwrap_err();
            refused.strip_prefix("run.toml: ").map(str::to_owned).unwrap_or(refused)
        };
        assert_eq!(within("bacth = 1").split(": ").next(), Some("bacth"));
        assert!(within("bacth = 1").ends_with("did you mean batch?"));
        assert!(within("overlong = \"skip\"").starts_with("overlong: expected invalid = \"error\" or \"skip\""));
        let misplaced = resolve(&format!("{FILE}\n[stage.lora]\nrank = 4\nalpha = 8"), &[]).unwrap_err();
        let expected = "run.toml: stage[1].lora: expected the field above the first [[stage]]";
        assert!(misplaced.starts_with(expected), "{misplaced}");
        let none = Recipe::resolve_table("run.toml", Table::new(), &[]).unwrap_err().to_string();
        assert_eq!(none, "run.toml: stage: expected at least one [[stage]] with a method and its data, got none");
    }
}
