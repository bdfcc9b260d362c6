//! An estimate of the memory that a stage needs.
//!
//! Weights, gradients and moments are counted exactly; activations are bounded by the longest examples that the stage
//! allows.

use objective::Data;
use serde::Serialize;

use crate::checkpoint::config::{Dtype, ModelConfig};
use crate::checkpoint::lora::Lora;
use crate::train::optimizer::Precision;
use crate::train::recipe::{Keeping, Stage};
use crate::train::reference::Wanted;
use crate::transformer::head::LOGITS;
use crate::transformer::model::{Shape, shapes};

/// Memory of common GPUs, GiB.
const GPUS: [(&str, f64); 7] = [
    ("RTX 3060", 12.0),
    ("T4, V100", 16.0),
    ("RTX 4090, A10, L4", 24.0),
    ("A100 40 GB", 40.0),
    ("A6000, L40S", 48.0),
    ("A100 80 GB, H100", 80.0),
    ("H200", 141.0),
];

/// Memory that CUDA's own libraries take, bytes.
const RUNTIME: u64 = 1 << 30;

/// Parts of a stage's memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Weights of the model and of its adapters.
    pub weights: u64,
    /// Gradients in 32 bits, including those of the layer that is being pulled back.
    pub gradients: u64,
    /// Moments of the optimizer.
    pub moments: u64,
    /// 32-bit copies of 16-bit weights.
    pub masters: u64,
    /// Copy of the reference policy, or the buffers of its whole distribution; and a teacher, assumed to be as large as
    /// the model.
    pub reference: u64,
    /// Activations that forward passes keep, for `micro_batch` records of length `max_length`.
    pub activations: u64,
    /// Logits of a chunk, and buffers derived from them.
    pub head: u64,
}

/// Number of parameters of a model of this shape.
pub fn parameters(config: &ModelConfig) -> u64 {
    shapes(config).iter().map(elements).sum()
}

pub(crate) fn elements(shape: &Shape) -> u64 {
    shape.size.iter().product::<i64>().unsigned_abs()
}

impl MemoryPlan {
    /// Estimates a stage for a model of this shape that computes in `dtype`, and trains these adapters or every weight.
    pub fn new(config: &ModelConfig, dtype: Dtype, lora: Option<&Lora>, stage: &Stage) -> Self {
        let sequences = match stage.requirements().data {
            Data::Demonstrations | Data::Rollouts | Data::Labelled { mismatched: false } => 1,
            Data::Preferences | Data::Labelled { mismatched: true } => 2,
            // The size of groups in a file is unknown here; this is the number of responses that the methods sample.
            Data::Groups => 8,
        };
        let (parameters, bytes) = (parameters(config), dtype.bytes() as u64);
        let shapes = lora.map_or_else(|| shapes(config), |lora| lora.shapes(config));
        let trained = shapes.iter().map(elements).sum::<u64>();
        let adapters = if lora.is_some() { trained } else { 0 };
        let (hidden, layers) = (config.hidden_size as u64, config.layers as u64);
        let heads = (config.heads * config.head_dim) as u64;
        let keys = (config.kv_heads * config.head_dim) as u64;
        let tokens = (stage.micro_batch * stage.max_length) as u64 * sequences;
        let wide = dtype == Dtype::Float32;
        // Two norms keep their input and output, with 32-bit copies between if the model computes in 16 bits; attention
        // keeps its input and output twice; the feed-forward network keeps four of its wide tensors.
        let norms = if wide { 6 * hidden * 4 } else { 2 * (2 * hidden * 4 + 3 * hidden * bytes) };
        // Output of each adapter's A, before and after scaling.
        let inner = lora.map_or(0, |lora| 2 * (lora.rank() * lora.targets().len()) as u64 * bytes);
        let layer = norms + inner + (3 * heads + 2 * keys + 4 * config.intermediate_size as u64) * bytes;
        let kept = if stage.activation_checkpointing { layer + layers * hidden * bytes } else { layers * layer };
        let (first, second) = stage.optimizer.moments();
        let per_layer = shapes.iter().filter(|shape| shape.name.contains(".layers.0.")).map(elements).sum::<u64>();
        let vocabulary = config.vocabulary as u64;
        let wanted = Wanted::of(&stage.requirements());
        let reference = match (wanted, stage.reference) {
            (None, _) | (Some(_), Keeping::Base) => 0,
            (Some(_), Keeping::Hold) if lora.is_some() => adapters * bytes,
            (Some(_), Keeping::Hold) => parameters * bytes,
            (Some(wanted), Keeping::Cache) if wanted.distribution() => vocabulary * hidden * bytes,
            (Some(_), Keeping::Cache) => 0,
        };
        let teacher = if stage.teacher.is_some() { parameters * bytes } else { 0 };
        let reference = reference + teacher;
        let chunk = (LOGITS as u64).clamp(vocabulary, tokens * vocabulary) * 4;
        let distribution = wanted.is_some_and(|wanted| wanted.distribution());
        // Product that is added to the gradient of the output weights.
        let product = if wide || lora.is_some() { 0 } else { vocabulary * hidden * bytes };
        Self {
            weights: (parameters + adapters) * bytes,
            gradients: trained * 4 + per_layer * bytes,
            moments: trained * 4 * (u64::from(first) + u64::from(second)),
            masters: if wide || stage.precision == Precision::Stochastic { 0 } else { trained * 4 },
            reference,
            activations: tokens * kept,
            head: chunk * if reference > 0 || distribution { 4 } else { 2 } + product,
        }
    }

    /// Total of all parts.
    pub fn total(&self) -> u64 {
        let Self { weights, gradients, moments, masters, reference, activations, head } = self;
        weights + gradients + moments + masters + reference + activations + head
    }

    /// GPUs with enough memory for the total and CUDA's own libraries.
    pub fn fits(&self) -> Vec<&'static str> {
        let needed = (self.total() + RUNTIME) as f64 / (1_u64 << 30) as f64;
        GPUS.into_iter().filter(|(_, memory)| needed <= *memory).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::config::parse_config;

    #[test]
    fn parameters_of_known_models_are_those_that_their_makers_tell() {
        let smollm2 = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": true}"#;
        let mistral = r#"{"architectures": ["MistralForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}"#;
        for (text, parameters) in [(smollm2, 134_515_008), (mistral, 7_241_732_096)] {
            let config = parse_config("config.json".as_ref(), text).unwrap();
            assert_eq!(super::parameters(&config), parameters);
        }
    }
}
