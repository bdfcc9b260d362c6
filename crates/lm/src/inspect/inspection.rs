//! A summary of a model, and of the memory that a recipe needs, without loading the model.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::lora::Lora;
use crate::inspect::memory::{MemoryPlan, elements, parameters};
use crate::train::recipe::Recipe;

/// A model's shape, and the memory of each stage of a recipe. Its text form is the output of `lm inspect`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    architecture: &'static str,
    parameters: u64,
    /// Number of trained parameters of the adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained: Option<u64>,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    tied_embeddings: bool,
    positions: usize,
    stages: Vec<StageInspection>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct StageInspection {
    method: &'static str,
    #[serde(flatten)]
    plan: MemoryPlan,
    total: u64,
    fits: Vec<&'static str>,
}

impl Inspection {
    /// Summarises a model of this shape, the stages of a recipe that trains it, and these adapters of it.
    pub fn new(config: &ModelConfig, recipe: Option<&Recipe>, lora: Option<&Lora>) -> Self {
        let stages = recipe.into_iter().flat_map(|recipe| {
            recipe.stage.iter().map(|stage| {
                let plan = MemoryPlan::new(config, recipe.dtype, lora, stage);
                StageInspection { method: stage.method.method().name, plan, total: plan.total(), fits: plan.fits() }
            })
        });
        Self {
            architecture: config.architecture.into(),
            parameters: parameters(config),
            trained: lora.map(|lora| lora.shapes(config).iter().map(elements).sum()),
            layers: config.layers,
            hidden_size: config.hidden_size,
            heads: config.heads,
            kv_heads: config.kv_heads,
            vocabulary: config.vocabulary,
            tied_embeddings: config.tied_embeddings,
            positions: config.positions,
            stages: stages.collect(),
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, parameters, layers, hidden_size, heads, kv_heads, vocabulary, positions, .. } = self;
        let tied = if self.tied_embeddings { ", tied" } else { "" };
        writeln!(
            f,
            "{architecture}: {parameters} parameters, {layers} layers of {hidden_size}, {heads} heads ({kv_heads} of keys), \
             {vocabulary} tokens{tied}, {positions} positions"
        )?;
        if let Some(trained) = self.trained {
            writeln!(f, "adapters: {trained} parameters")?;
        }
        if self.stages.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        let header =
            ["stage", "weights", "gradients", "moments", "masters", "reference", "activations", "head", "total (GiB)"];
        table.load_style(presets::NOTHING).set_header(header);
        for StageInspection { method, plan, total, .. } in &self.stages {
            let MemoryPlan { weights, gradients, moments, masters, reference, activations, head } = plan;
            let parts = [weights, gradients, moments, masters, reference, activations, head, total];
            let cells = parts.map(|bytes| format!("{:.2}", *bytes as f64 / (1_u64 << 30) as f64));
            table.add_row([(*method).to_owned()].into_iter().chain(cells));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "\n{}\n", table.trim_fmt())?;
        for StageInspection { method, fits, .. } in &self.stages {
            let fits = if fits.is_empty() { "none of the listed GPUs".to_owned() } else { fits.join("; ") };
            writeln!(f, "{method} fits: {fits}")?;
        }
        Ok(())
    }
}
