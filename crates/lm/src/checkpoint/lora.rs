//! Low-rank adapters: the linear maps that have one, their size, and their initialisation.
//!
//! # Formula
//!
//! An adapted map is y = W x + b + s B (A x), with A of shape [rank, in] and B of shape [out, rank]. W and b are
//! frozen. The scaling s is α / rank, or α / √rank (rank-stabilised). A is initialised uniformly in ±1 / √in, as in
//! PEFT, and B with zeros, so the adapted model initially equals the base model to the last bit.
//!
//! Source: arXiv 2106.09685, and arXiv 2312.03732 for the rank-stabilised scaling. A and B have the type in which the
//! model computes; if that is a 16-bit type, the optimizer treats them like any other weight.

use std::collections::HashMap;
use std::path::PathBuf;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoEnumIterator, VariantNames};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::config::ModelConfig;
use crate::error::{LmError, refuse};
use crate::transformer::model::{Adapted, Shape, adapted};

/// A linear map of a layer, named as in a checkpoint.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Display,
    EnumIter,
    EnumString,
    VariantNames,
    Serialize,
    Deserialize,
)]
pub enum Projection {
    /// Map to the queries of attention.
    #[serde(rename = "q_proj")]
    #[strum(serialize = "q_proj")]
    Query,
    /// Map to the keys.
    #[serde(rename = "k_proj")]
    #[strum(serialize = "k_proj")]
    Key,
    /// Map to the values.
    #[serde(rename = "v_proj")]
    #[strum(serialize = "v_proj")]
    Value,
    /// Output map of attention.
    #[serde(rename = "o_proj")]
    #[strum(serialize = "o_proj")]
    Output,
    /// Gate of the feed-forward network.
    #[serde(rename = "gate_proj")]
    #[strum(serialize = "gate_proj")]
    Gate,
    /// Map to the numbers that the gate multiplies.
    #[serde(rename = "up_proj")]
    #[strum(serialize = "up_proj")]
    Up,
    /// Output map of the feed-forward network.
    #[serde(rename = "down_proj")]
    #[strum(serialize = "down_proj")]
    Down,
}

/// Maximum rank, above any model's hidden size, so that the shape of an adapter never overflows.
const MAX_RANK: usize = 1 << 20;

/// Shape of a model's adapters, the same in each of its layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    rank: usize,
    alpha: f64,
    /// Adapted maps, in the order of a layer's maps.
    targets: Vec<Projection>,
    rslora: bool,
}

/// Origin of a run's adapters, from the table `[lora]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum Start {
    /// New adapters of this shape.
    New(Lora),
    /// Existing adapters in PEFT's format, in a folder or of a model of the hub.
    Adapter(PathBuf),
}

/// Fields of the table `[lora]`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Lora")]
struct Fields {
    /// Adapter to continue, in PEFT's layout: a folder, or a model of the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<PathBuf>,
    /// Rank of new adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_RANK))]
    rank: Option<usize>,
    /// Scale of new adapters: B A is multiplied by alpha / rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    alpha: Option<f64>,
    /// Linear maps that have adapters; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "targets")]
    targets: Option<Vec<Projection>>,
    /// Whether B A is multiplied by alpha / sqrt(rank) instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    rslora: Option<bool>,
}

fn targets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "enum": Projection::VARIANTS } })
}

impl Lora {
    /// Makes the shape of adapters of this rank on these projections.
    ///
    /// # Errors
    ///
    /// [`LmError::Record`] naming the field that is out of range.
    pub fn new(rank: usize, alpha: f64, targets: &[Projection], rslora: bool) -> Result<Self, LmError> {
        if rank == 0 {
            return Err(refuse("rank", "at least 1", rank));
        }
        if rank > MAX_RANK {
            return Err(refuse("rank", format!("at most {MAX_RANK}"), rank));
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(refuse("alpha", "a finite number above 0", alpha));
        }
        let mut ordered = targets.to_vec();
        ordered.sort_unstable();
        ordered.dedup();
        if ordered.is_empty() || ordered.len() < targets.len() {
            let given: Vec<_> = targets.iter().map(Projection::to_string).collect();
            return Err(refuse(
                "targets",
                "at least one projection, and none of them twice",
                format!("[{}]", given.join(", ")),
            ));
        }
        Ok(Self { rank, alpha, targets: ordered, rslora })
    }

    /// Number of rows of A and of columns of B.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Numerator α of the scaling.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Adapted maps, in the order of a layer's maps.
    pub fn targets(&self) -> &[Projection] {
        &self.targets
    }

    /// Whether the scaling is α / √rank instead of α / rank.
    pub fn rslora(&self) -> bool {
        self.rslora
    }

    /// Factor s by which B A is multiplied.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Names and shapes of A and B of all adapters, named as in PEFT's files and in the order of gradients, optimizers
    /// and files.
    pub fn shapes(&self, config: &ModelConfig) -> Vec<Shape> {
        let maps = adapted(config, self).into_iter();
        maps.flat_map(|Adapted { name, rows, columns }| self.pair(&name, rows, columns)).collect()
    }

    /// Shapes of A and B of one map.
    fn pair(&self, map: &str, rows: i64, columns: i64) -> [Shape; 2] {
        let rank = self.rank as i64;
        let shape = |side, size: [i64; 2]| Shape { name: tensor_name(map, side), size: size.to_vec() };
        [shape(Side::A, [rank, columns]), shape(Side::B, [rows, rank])]
    }

    /// Rejects a rank greater than that of every adapted map, as B A cannot have a greater rank than the map itself.
    ///
    /// # Errors
    ///
    /// [`LmError::Record`] naming the rank.
    pub fn fits(&self, config: &ModelConfig) -> Result<(), LmError> {
        let maps = adapted(config, self).into_iter();
        let greatest = maps.map(|Adapted { rows, columns, .. }| rows.min(columns).unsigned_abs()).max().unwrap_or(0);
        if self.rank as u64 <= greatest {
            return Ok(());
        }
        let allowed = format!("at most {greatest}, the greatest rank of an adapted map of this model");
        Err(refuse("lora.rank", allowed, self.rank))
    }

    /// Initial values of [`shapes`](Self::shapes). Each A has its own stream of the seed's random numbers, so that it
    /// does not depend on which other maps are adapted.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn initial(&self, config: &ModelConfig, seed: u64) -> Result<HashMap<String, Tensor>, LmError> {
        let mut tensors = HashMap::new();
        for Adapted { name, rows, columns } in adapted(config, self) {
            let [a, b] = self.pair(&name, rows, columns);
            let key = blake3::hash(&[&seed.to_le_bytes(), a.name.as_bytes()].concat());
            let mut rng = ChaCha8Rng::from_seed(*key.as_bytes());
            let bound = 1.0 / (columns as f32).sqrt();
            let values: Vec<f32> = (0..a.size.iter().product()).map(|_| rng.random_range(-bound..bound)).collect();
            tensors.insert(a.name, Tensor::f_from_slice(&values)?.f_view(&a.size[..])?);
            tensors.insert(b.name, Tensor::f_zeros(&b.size[..], (Kind::Float, Device::Cpu))?);
        }
        Ok(tensors)
    }
}

impl TryFrom<Fields> for Start {
    type Error = LmError;

    fn try_from(Fields { adapter, rank, alpha, targets, rslora }: Fields) -> Result<Self, LmError> {
        if let Some(folder) = adapter {
            let given = [
                ("rank", rank.is_some()),
                ("alpha", alpha.is_some()),
                ("targets", targets.is_some()),
                ("rslora", rslora.is_some()),
            ];
            return match given.into_iter().find(|(_, given)| *given) {
                Some((field, _)) => Err(refuse(field, "nothing, as the adapter's own file sets it", "a value")),
                None => Ok(Self::Adapter(folder)),
            };
        }
        let rank = rank.ok_or_else(|| {
            refuse("rank", "a rank, or adapter = \"FOLDER\" to continue with existing adapters", "nothing")
        })?;
        let alpha = alpha.ok_or_else(|| refuse("alpha", "a finite number above 0", "nothing"))?;
        let targets = targets.unwrap_or_else(|| Projection::iter().collect());
        Ok(Self::New(Lora::new(rank, alpha, &targets, rslora.unwrap_or(false))?))
    }
}

impl From<Start> for Fields {
    fn from(start: Start) -> Self {
        match start {
            Start::New(Lora { rank, alpha, targets, rslora }) => Self {
                adapter: None,
                rank: Some(rank),
                alpha: Some(alpha),
                targets: Some(targets),
                rslora: Some(rslora),
            },
            Start::Adapter(folder) => Self { adapter: Some(folder), ..Self::default() },
        }
    }
}

/// One of the two factors of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display)]
pub(crate) enum Side {
    A,
    B,
}

/// A factor's name in PEFT's files.
pub(crate) fn tensor_name(map: &str, side: Side) -> String {
    format!("base_model.model.{map}.lora_{side}.weight")
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::config::parse_config;

    use super::*;

    fn config() -> ModelConfig {
        let text = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}"#;
        parse_config("config.json".as_ref(), text).unwrap()
    }

    #[test]
    fn the_scaling_is_alpha_by_the_rank_or_by_its_root() {
        let scaling = |rslora| Lora::new(4, 6.0, &[Projection::Query], rslora).unwrap().scaling();
        assert_eq!((scaling(false), scaling(true)), (1.5, 3.0));
    }

    #[test]
    fn an_adapter_begins_within_its_bounds_and_alike_whatever_else_is_adapted() {
        let initial =
            |targets: &[Projection], seed| Lora::new(3, 1.0, targets, false).unwrap().initial(&config(), seed).unwrap();
        let (one, two) = (initial(&[Projection::Down], 5), initial(&[Projection::Query, Projection::Down], 5));
        assert_eq!((one.len(), two.len()), (4, 8));
        assert!(one.iter().all(|(name, tensor)| two[name] == *tensor));
        let (a, b) =
            ["A", "B"].map(|side| format!("base_model.model.model.layers.1.mlp.down_proj.lora_{side}.weight")).into();
        assert_eq!((one[&a].size(), one[&b].size()), (vec![3, 24], vec![16, 3]));
        let greatest = one[&a].abs().max().double_value(&[]);
        assert!(greatest <= 1.0 / 24.0_f64.sqrt() && greatest > 0.15, "{greatest}");
        assert_eq!(one[&b].abs().max().double_value(&[]), 0.0);
        assert!(initial(&[Projection::Down], 6)[&a] != one[&a]);
    }

    #[test]
    fn a_rank_is_at_most_that_of_the_widest_map_that_is_adapted() {
        // The map to keys is 16 × 8, those of the feed-forward network are 16 × 24 and 24 × 16.
        let fits = |rank, target| Lora::new(rank, 1.0, &[target], false).unwrap().fits(&config());
        assert!(fits(8, Projection::Key).is_ok() && fits(16, Projection::Up).is_ok());
        let refused = fits(9, Projection::Key).unwrap_err().to_string();
        let expected = "lora.rank: expected at most 8, the greatest rank of an adapted map of this model, got 9";
        assert_eq!(refused, expected);
        fits(MAX_RANK, Projection::Up).unwrap_err();
        let refused = Lora::new(MAX_RANK + 1, 1.0, &[Projection::Up], false).unwrap_err().to_string();
        assert_eq!(refused, "rank: expected at most 1048576, got 1048577");
    }

    #[test]
    fn what_is_refused_is_named() {
        let refused = |text: &str, message: &str| {
            let error = toml::from_str::<Start>(text).unwrap_err().message().to_owned();
            assert!(error.contains(message), "{error}");
        };
        refused("rank = 0\nalpha = 1.0", "rank: expected at least 1, got 0");
        refused("rank = 1", "alpha: expected a finite number above 0, got nothing");
        refused("rank = 1\nalpha = 0.0", "alpha: expected a finite number above 0, got 0");
        refused(
            "alpha = 1.0",
            "rank: expected a rank, or adapter = \"FOLDER\" to continue with existing adapters, got nothing",
        );
        refused(
            "rank = 1\nalpha = 1.0\ntargets = []",
            "targets: expected at least one projection, and none of them twice, got []",
        );
        refused("rank = 1\nalpha = 1.0\ntargets = [\"lm_head\"]", "unknown variant `lm_head`");
        refused("adapter = \"a\"\nrank = 1", "rank: expected nothing, as the adapter's own file sets it, got a value");
    }
}
