//! Low-rank adapters in PEFT's file format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter written by another program may name any base model. A field that would change the adapter's function and
//! is not supported here is an error, and never ignored.

use std::path::Path;

use serde_json::{Map, Value, json};
use strum::VariantNames;
use tch::Tensor;
use text::json;

use crate::checkpoint::config::Dtype;
use crate::checkpoint::folder::{self, Appearing, Inherited};
use crate::checkpoint::lora::{Lora, Projection, Start};
use crate::checkpoint::weights::{Weights, refuse_not_finite, write_file};
use crate::error::LmError;
use crate::transformer::model::{Shape, Transformer};

/// Name of the file with the adapter's configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the file with the adapter's weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Fields without influence on the adapted model's function, which are ignored.
const PASSED: [&str; 10] = [
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];
/// Value of `peft_type` for low-rank adapters.
const KIND: &str = "LORA";
/// Names of initialisations that leave the base model unchanged. Others move a part of its weights into the adapter,
/// and need a base without that part.
const BEGINNINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Purpose for which an adapter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Inference: dropout is ignored, as it only affects training.
    Applied,
    /// Further training, for which dropout is not supported.
    Trained,
}

/// Reads the configuration of the adapters in a folder.
///
/// # Errors
///
/// [`LmError::File`], [`LmError::Json`], and [`LmError::Field`] for a missing field or an unsupported value.
pub fn read_lora(folder: &Path, purpose: Use) -> Result<Lora, LmError> {
    let path = folder.join(CONFIG_FILE);
    parse_lora(&path, &json::read_text(&path)?, purpose)
}

/// Adds the adapters in a folder to a model.
///
/// # Errors
///
/// As [`read_lora`] and [`Weights::read_file`].
pub fn apply(model: &mut Transformer, folder: &Path, purpose: Use) -> Result<(), LmError> {
    let lora = read_lora(folder, purpose)?;
    let weights = Weights::read_file(&folder.join(WEIGHTS_FILE), lora.shapes(model.config()))?;
    model.adapt(lora, weights)
}

/// Adds newly initialised adapters to a model.
///
/// # Errors
///
/// [`LmError::Engine`] for a failure of libtorch.
pub fn begin(model: &mut Transformer, lora: &Lora, seed: u64) -> Result<(), LmError> {
    let weights = Weights::new(Path::new(WEIGHTS_FILE), lora.initial(model.config(), seed)?);
    model.adapt(lora.clone(), weights)
}

/// Writes adapters as a new folder `target`, which appears once it is complete. `base` is the folder or hub id of their
/// base model.
///
/// # Errors
///
/// [`LmError::File`] if `target` exists already or cannot be written.
pub fn write(
    target: &Path,
    base: &str,
    lora: &Lora,
    tensors: &[(Shape, &Tensor)],
    dtype: Dtype,
) -> Result<(), LmError> {
    folder::whole(target, Appearing::New, |folder| fill(folder, base, lora, None, tensors, dtype))
}

/// Writes the adapter's files, and those other files in which the adapted model differs from its base.
pub(crate) fn fill(
    folder: &Path,
    base: &str,
    lora: &Lora,
    inherited: Option<&Inherited<'_>>,
    tensors: &[(Shape, &Tensor)],
    dtype: Dtype,
) -> Result<(), LmError> {
    refuse_not_finite(folder, tensors, dtype)?;
    inherited.map_or(Ok(()), |inherited| inherited.write_changes(folder))?;
    let stored = tensors.iter().map(|(shape, tensor)| (shape.clone(), *tensor, dtype));
    write_file(&folder.join(WEIGHTS_FILE), stored)?;
    let path = folder.join(CONFIG_FILE);
    let text = serde_json::to_string_pretty(&config(base, lora)).map_err(|source| LmError::Json {
        path: path.clone(),
        field: ".".to_owned(),
        source,
    })?;
    std::fs::write(&path, text + "\n").map_err(|source| LmError::File { path, source })
}

/// Returns the shape of the adapters that a run trains.
///
/// # Errors
///
/// As [`read_lora`] and [`folder::find`].
pub fn shape_of(start: &Start) -> Result<Lora, LmError> {
    match start {
        Start::New(lora) => Ok(lora.clone()),
        Start::Adapter(name) => read_lora(&folder::find(&name.to_string_lossy())?, Use::Trained),
    }
}

/// Adds the adapters with which a run begins to a model.
///
/// # Errors
///
/// As [`apply`], [`Lora::fits`], [`begin`] and [`folder::find`].
pub fn start(model: &mut Transformer, start: &Start, seed: u64) -> Result<(), LmError> {
    match start {
        Start::New(lora) => {
            lora.fits(model.config())?;
            begin(model, lora, seed)
        }
        Start::Adapter(name) => apply(model, &folder::find(&name.to_string_lossy())?, Use::Trained),
    }
}

fn parse_lora(path: &Path, text: &str, purpose: Use) -> Result<Lora, LmError> {
    let fields: Map<String, Value> = strict_json::from_str(text).map_err(|source| LmError::Json {
        path: path.to_owned(),
        field: ".".to_owned(),
        source,
    })?;
    let refuse = |field: &str, allowed: &str, given: Option<&Value>| LmError::Field {
        path: path.to_owned(),
        field: field.to_owned(),
        allowed: allowed.to_owned(),
        given: given.map_or("nothing".to_owned(), Value::to_string),
    };
    // Checks the kind first, as other kinds of adapters have other fields.
    match fields.get("peft_type") {
        Some(Value::String(name)) if name == KIND => {}
        given => {
            return Err(refuse("peft_type", &format!("{KIND:?}, the only kind of adapter that is supported"), given));
        }
    }
    for (field, value) in &fields {
        let allowed = match field.as_str() {
            "r" | "lora_alpha" | "target_modules" | "use_rslora" => continue,
            "task_type" if !value.is_null() && value != "CAUSAL_LM" => "\"CAUSAL_LM\"",
            "bias" if value != "none" => "\"none\"",
            "lora_dropout" if purpose == Use::Trained && value.as_f64() != Some(0.0) => {
                "0, as dropout is not supported in training"
            }
            "init_lora_weights"
                if !value.is_boolean() && !value.as_str().is_some_and(|name| BEGINNINGS.contains(&name)) =>
            {
                "true, false, gaussian, orthogonal or eva, which leave the base model unchanged"
            }
            "peft_type" | "task_type" | "bias" | "lora_dropout" | "init_lora_weights" => continue,
            other if PASSED.contains(&other) || is_off(value) => continue,
            _ => "nothing, as such adapters are not supported",
        };
        return Err(refuse(field, allowed, Some(value)));
    }
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let rank = field("r").and_then(Value::as_u64).and_then(|rank| usize::try_from(rank).ok());
    let rank = rank.ok_or_else(|| refuse("r", "a whole number", field("r")))?;
    let alpha = field("lora_alpha").and_then(Value::as_f64);
    let alpha = alpha.ok_or_else(|| refuse("lora_alpha", "a number", field("lora_alpha")))?;
    let projection = |value: &Value| value.as_str().and_then(|name| name.parse::<Projection>().ok());
    let targets: Option<Vec<_>> =
        field("target_modules").and_then(Value::as_array).and_then(|names| names.iter().map(projection).collect());
    let targets = targets.ok_or_else(|| {
        let allowed = format!("a list of {}", Projection::VARIANTS.join(", "));
        refuse("target_modules", &allowed, field("target_modules"))
    })?;
    let rslora = match field("use_rslora") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| refuse("use_rslora", "true or false", Some(value)))?,
    };
    Lora::new(rank, alpha, &targets, rslora).map_err(|error| match error {
        LmError::Record { field, allowed, given } => LmError::Field { path: path.to_owned(), field, allowed, given },
        other => other,
    })
}

/// Whether the field's value switches the feature off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Contents of `adapter_config.json`: the fields that describe the adapters, and those that PEFT needs to know that
/// features are off.
fn config(base: &str, lora: &Lora) -> Value {
    let (name, revision) = match base.split_once('@') {
        Some((name, revision)) if !Path::new(base).is_dir() => (name, Some(revision)),
        _ => (base, None),
    };
    // PEFT writes whole numbers as integers.
    let alpha: Value = match lora.alpha() {
        alpha if alpha.fract() == 0.0 && alpha.abs() < 1e15 => (alpha as i64).into(),
        alpha => alpha.into(),
    };
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": KIND,
        "r": lora.rank(),
        "rank_pattern": {},
        "revision": revision,
        "target_modules": lora.targets(),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": lora.rslora(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "any/model", "r": 4,
        "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"], "lora_dropout": 0.05, "bias": "none", "loftq_config": {},
        "modules_to_save": null, "init_lora_weights": true, "megatron_core": "megatron.core", "use_dora": false}"#;

    fn parse(text: &str, purpose: Use) -> Result<Lora, String> {
        parse_lora(Path::new("a.json"), text, purpose).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let lora = Lora::new(3, 4.5, &[Projection::Down, Projection::Key], true).unwrap();
        let text = config("owner/name@main", &lora).to_string();
        assert_eq!(parse(&text, Use::Trained), Ok(lora));
        assert!(text.contains(r#""base_model_name_or_path":"owner/name""#) && text.contains(r#""revision":"main""#));
    }

    #[test]
    fn dropout_is_refused_where_it_would_be_trained_with() {
        let expected = Lora::new(4, 8.0, &[Projection::Query, Projection::Value], false).unwrap();
        assert_eq!(parse(FILE, Use::Applied), Ok(expected));
        let error = parse(FILE, Use::Trained).unwrap_err();
        assert_eq!(error, "a.json: lora_dropout: expected 0, as dropout is not supported in training, got 0.05");
    }

    #[test]
    fn what_would_be_another_function_is_refused_by_name() {
        for (from, to, message) in [
            (
                "\"LORA\"",
                "\"LOHA\"",
                "peft_type: expected \"LORA\", the only kind of adapter that is supported, got \"LOHA\"",
            ),
            (
                "\"peft_type\": \"LORA\", ",
                "",
                "peft_type: expected \"LORA\", the only kind of adapter that is supported, got nothing",
            ),
            ("\"r\": 4", "\"r\": 4, \"r\": 5", ".: duplicate key \"r\""),
            ("\"CAUSAL_LM\"", "\"SEQ_CLS\"", "task_type: expected \"CAUSAL_LM\", got \"SEQ_CLS\""),
            ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias: expected \"none\", got \"all\""),
            (
                "\"use_dora\": false",
                "\"use_dora\": true",
                "use_dora: expected nothing, as such adapters are not supported, got true",
            ),
            ("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save: expected nothing"),
            ("\"loftq_config\": {}", "\"rank_pattern\": {\"q_proj\": 2}", "rank_pattern: expected nothing"),
            ("\"loftq_config\": {}", "\"fan_in_fan_out\": true", "fan_in_fan_out: expected nothing"),
            (
                "\"init_lora_weights\": true",
                "\"init_lora_weights\": \"pissa\"",
                "init_lora_weights: expected true, false, gaussian",
            ),
            ("[\"v_proj\", \"q_proj\"]", "\"all-linear\"", "target_modules: expected a list of q_proj, k_proj"),
            ("\"v_proj\"", "\"embed_tokens\"", "target_modules: expected a list of q_proj, k_proj"),
            ("\"r\": 4", "\"r\": 0", "rank: expected at least 1, got 0"),
            ("\"r\": 4,", "", "r: expected a whole number, got nothing"),
        ] {
            let error = parse(&FILE.replace(from, to), Use::Applied).unwrap_err();
            assert!(error.starts_with("a.json: ") && error.contains(message), "{error}");
        }
    }
}
