//! How a recipe comes about: the default recipe, a file, and assignments, each replacing fields of the one before; and
//! how two differ.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::civil::{Date, DateTime};
use toml::{Table, Value};

use super::{Keeping, REFERENCE, Recipe, STAGE, fail};
use crate::error::{LmError, refuse};

/// The recipe whose fields every other one replaces.
const DEFAULT: &str = include_str!("../../../../../experiments/lm/default.toml");
/// The table of adapters.
const LORA: &str = "lora";
/// Fields that no stage has.
const WHOLE: [&str; 11] =
    ["model", "device", "dtype", "seed", THREADS, DATE, "chat_template", "eos_token", "cache", LORA, STAGE];
/// Name of the field with the date for chat templates.
const DATE: &str = "date";
/// Name of the field with the number of libtorch's threads.
const THREADS: &str = "threads";
/// Parameters of methods, by their names, whose defaults differ here.
const METHODS: &str = "methods";
/// The two fields that set the length of a stage.
const LENGTHS: [&str; 2] = ["epochs", "steps"];

/// Date for chat templates in the default recipe: where there is no recipe, answers do not depend on the day either.
///
/// # Errors
///
/// [`LmError::Recipe`] for a default recipe that says it wrongly.
pub fn default_now() -> Result<DateTime, LmError> {
    let date = defaults()?.remove(DATE).unwrap_or(Value::Boolean(false));
    let date: Date = date.try_into().map_err(|error| fail("default recipe", error))?;
    Ok(date.at(0, 0, 0, 0))
}

fn defaults() -> Result<Table, LmError> {
    DEFAULT.parse().map_err(|error| fail("default recipe", error))
}

impl Recipe {
    /// The default recipe, its fields replaced by those of a file, and these by assignments `key=value`, where a key
    /// may lead into the recipe by dots: `learning_rate=1e-6` for every stage, `stage.0.method.beta=0.2` for one.
    ///
    /// # Errors
    ///
    /// [`LmError::Recipe`] naming the file, the field, what is allowed and what was given.
    pub fn resolve(file: &Path, assignments: &[String]) -> Result<Self, LmError> {
        let origin = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|source| LmError::File { path: file.to_owned(), source })?;
        let table = text.parse::<Table>().map_err(|error| fail(&origin, error))?;
        Self::resolve_table(&origin, table, assignments)
    }

    fn resolve_table(origin: &str, mut table: Table, assignments: &[String]) -> Result<Self, LmError> {
        for assignment in assignments {
            assign(&mut table, assignment).map_err(|error| fail("--set", error))?;
        }
        let mut defaults = defaults()?;
        let methods = defaults.remove(METHODS);
        let stages = match table.remove(STAGE) {
            Some(Value::Array(stages)) if !stages.is_empty() => stages,
            _ => return Err(fail(origin, refuse(STAGE, "at least one [[stage]] with a method and its data", "none"))),
        };
        misplaced(&table, &stages).map_err(|error| fail(origin, error))?;
        let names_reference = table.contains_key(REFERENCE);
        let lora = table.get(LORA).and_then(Value::as_table).map(|lora| lora.contains_key("adapter"));
        overlay(&mut defaults, table);
        let (whole, shared): (Table, Table) = defaults.into_iter().partition(|(key, _)| WHOLE.contains(&key.as_str()));
        let mut resolved = whole;
        let stages = stages.into_iter().enumerate().map(|(index, stage)| match stage {
            Value::Table(stage) => {
                let mut fields = shared.clone();
                if let Some(goes_on) = lora.filter(|_| !names_reference) {
                    // The reference is the policy as the stage finds it: without its adapters while they add nothing
                    // yet.
                    let keeping = if index == 0 && !goes_on { Keeping::Base } else { Keeping::Hold };
                    fields.insert(REFERENCE.to_owned(), keeping.to_string().into());
                }
                overlay(&mut fields, stage);
                if let Some(Value::Table(method)) = fields.get_mut("method") {
                    let name = method.get("name").and_then(Value::as_str).unwrap_or_default();
                    let own = methods.as_ref().and_then(|methods| methods.get(name)?.as_table());
                    let left_out: Vec<_> =
                        own.into_iter().flatten().filter(|(parameter, _)| !method.contains_key(*parameter)).collect();
                    left_out
                        .into_iter()
                        .for_each(|(parameter, value)| _ = method.insert(parameter.clone(), value.clone()));
                }
                Value::Table(fields)
            }
            other => other,
        });
        resolved.insert(STAGE.to_owned(), Value::Array(stages.collect()));
        if resolved.get(THREADS).and_then(Value::as_integer) == Some(0) {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as i64);
            resolved.insert(THREADS.to_owned(), cores.into());
        }
        let recipe: Self = serde_path_to_error::deserialize(Value::Table(resolved)).map_err(|error| {
            let field = error.path().to_string();
            fail(origin, format!("{field}: {}", error.into_inner().message()))
        })?;
        recipe.validate().map_err(|error| fail(origin, error))?;
        Ok(recipe)
    }

    /// The first field in which this recipe is not another one, by its path, and what the two say there.
    ///
    /// # Errors
    ///
    /// [`LmError::Recipe`] for a recipe that cannot be written.
    pub fn difference(&self, other: &Self) -> Result<Option<(String, String, String)>, LmError> {
        let table = |recipe: &Self| Value::try_from(recipe).map_err(|error| fail("recipe", error));
        Ok(difference(String::new(), Some(&table(self)?), Some(&table(other)?)))
    }
}

/// The first place at which two values differ.
fn difference(path: String, one: Option<&Value>, other: Option<&Value>) -> Option<(String, String, String)> {
    let inner = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    match (one, other) {
        (Some(Value::Table(one)), Some(Value::Table(other))) => {
            let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| difference(inner(key), one.get(key), other.get(key)))
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => (0..one.len().max(other.len()))
            .find_map(|index| difference(inner(&index.to_string()), one.get(index), other.get(index))),
        (one, other) if one == other => None,
        (one, other) => {
            let said = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            Some((path, said(one), said(other)))
        }
    }
}

/// Refuses fields in the wrong place, and old names, with the correct form.
fn misplaced(whole: &Table, stages: &[Value]) -> Result<(), LmError> {
    const OVERLONG: &str = "overlong";
    let replaced = |place: String| {
        let allowed = "invalid = \"error\" or \"skip\", which holds for all records that cannot be learnt from";
        Err(refuse(&place, allowed, OVERLONG))
    };
    if whole.contains_key(OVERLONG) {
        return replaced(OVERLONG.to_owned());
    }
    for (index, stage) in stages.iter().enumerate() {
        let Some(stage) = stage.as_table() else { continue };
        if stage.contains_key(OVERLONG) {
            return replaced(format!("{STAGE}[{index}].{OVERLONG}"));
        }
        if let Some(field) = WHOLE.iter().find(|field| stage.contains_key(**field)) {
            let allowed = "the field above the first [[stage]], as it holds for the whole run";
            return Err(refuse(&format!("{STAGE}[{index}].{field}"), allowed, "it in a stage"));
        }
    }
    Ok(())
}

/// Replaces fields. One of the two fields for a stage's length replaces the other.
fn overlay(fields: &mut Table, with: Table) {
    if LENGTHS.iter().any(|length| with.contains_key(*length)) {
        LENGTHS.iter().for_each(|length| _ = fields.remove(*length));
    }
    fields.extend(with);
}

fn assign(table: &mut Table, assignment: &str) -> Result<(), LmError> {
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(refuse("assignment", "key=value", format!("\"{assignment}\"")));
    };
    let (key, value) = (key.trim(), value.trim());
    // What is no number, switch, list or table is text, and needs no quotes.
    let value = format!("value = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    if !key.contains('.') && !WHOLE.contains(&key) {
        // It holds for every stage, whatever the file says of one.
        if let Some(Value::Array(stages)) = table.get_mut(STAGE) {
            for stage in stages.iter_mut().filter_map(Value::as_table_mut) {
                let other = LENGTHS.contains(&key);
                stage.retain(|name, _| name != key && !(other && LENGTHS.contains(&name)));
            }
        }
        if LENGTHS.contains(&key) {
            LENGTHS.iter().for_each(|length| _ = table.remove(*length));
        }
        table.insert(key.to_owned(), value);
        return Ok(());
    }
    let unknown =
        |part: &str| refuse(key, "a key that leads into the recipe", format!("\"{part}\", which is not there"));
    let (path, last) = key.rsplit_once('.').map_or((None, key), |(path, last)| (Some(path), last));
    let mut place = table;
    let mut parts = path.into_iter().flat_map(|path| path.split('.'));
    while let Some(part) = parts.next() {
        place = match place.entry(part).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(table) => table,
            Value::Array(list) => {
                let index = parts.next().unwrap_or_default();
                let entry = index.parse::<usize>().ok().and_then(|index| list.get_mut(index));
                entry.and_then(Value::as_table_mut).ok_or_else(|| unknown(index))?
            }
            _ => return Err(unknown(part)),
        };
    }
    place.insert(last.to_owned(), value);
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

    #[track_caller]
    fn refused(assignments: &[&str], message: &str) {
        assert_eq!(resolve(FILE, assignments).unwrap_err(), message);
    }

    #[test]
    fn what_is_refused_is_named() {
        refused(&["batch=0"], "run.toml: stage[0].batch: expected at least 1, got 0");
        refused(&["batch=1048577"], "run.toml: stage[0].batch: expected at most 1048576, got 1048577");
        refused(
            &["micro_batch=9000000000"],
            "run.toml: stage[0].micro_batch: expected at most 1048576, got 9000000000",
        );
        refused(&["threads=4097"], "run.toml: threads: expected 0 to 4096; 0 is one a core, got 4097");
        refused(
            &["steps=9000000000000"],
            "run.toml: stage[0].steps: expected at most 1099511627776, got 9000000000000",
        );
        refused(
            &["overlong=skip"],
            "run.toml: overlong: expected invalid = \"error\" or \"skip\", which holds for all records that cannot be \
             learnt from, got overlong",
        );
        refused(
            &["stage.1.lora={ rank = 4, alpha = 8 }"],
            "run.toml: stage[1].lora: expected the field above the first [[stage]], as it holds for the whole run, got it \
             in a stage",
        );
        refused(&["learning_rate=-1"], "run.toml: stage[0].learning_rate: expected a finite number above 0, got -1");
        refused(&["warmup_ratio=2"], "run.toml: stage[0].warmup_ratio: expected 0 to 1, got 2");
        refused(
            &["dtype=float16"],
            "run.toml: dtype: expected float32 or bfloat16, as small gradients vanish in float16, got float16",
        );
        refused(&["nonsense"], "--set: assignment: expected key=value, got \"nonsense\"");
        refused(
            &["stage.5.steps=1"],
            "--set: stage.5.steps: expected a key that leads into the recipe, got \"5\", which is not there",
        );
        let ppo = resolve(FILE, &["stage.0.method={ name = \"ppo\" }"]).unwrap_err();
        assert!(ppo.starts_with("run.toml: stage[0].method: expected a method that learns from data"), "{ppo}");
        assert_eq!(resolve(FILE, &["epochs=1e300"]).unwrap().stage[0].steps(130), 1 << 40);
        for (assignment, part) in [
            ("stage.0.method.beta=1", "sft.beta: unknown parameter"),
            ("stage.0.colour=1", "unknown field `colour`"),
            ("packing=loose", "unknown variant `loose`, expected `padded` or `packed`"),
        ] {
            let error = resolve(FILE, &[assignment]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let none = Recipe::resolve_table("run.toml", Table::new(), &[]).unwrap_err().to_string();
        assert_eq!(none, "run.toml: stage: expected at least one [[stage]] with a method and its data, got none");
    }
}
