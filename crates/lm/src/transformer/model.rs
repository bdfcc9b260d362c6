//! The transformer: a decoder in the style of Llama, with linear maps at both ends of its layers.
//!
//! What comes before the layers ([`Transformer::embed`]) and after them (the head) is pulled back by hand, so that
//! neither a [tokens, vocabulary] tensor nor a dense gradient of the embedding table is ever allocated. libtorch
//! differentiates the layers, one by one ([`Tape`]).

pub mod attention;
pub mod layer;
pub mod low_rank;
pub mod rope;
pub mod tape;

pub use attention::{Heads, Layout};
pub use tape::Tape;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::config::{Architecture, Dtype, ModelConfig, read_config};
use crate::checkpoint::lora::{Lora, Projection, Side, tensor_name};
use crate::checkpoint::weights::{Weights, bytes};
use crate::error::LmError;
use layer::{Convert, Layer, Linear, Maps, Norm};
use low_rank::LowRank;
use rope::Angles;

/// A transformer with its weights.
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    /// Output weights, if they are not the embedding table.
    head: Option<Tensor>,
    /// Shape of the adapters, if the model has some.
    lora: Option<Lora>,
}

/// A parameter's name in a checkpoint, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Name of the parameter.
    pub name: String,
    /// Dimensions of the parameter.
    pub size: Vec<i64>,
}

/// Name of the embedding table.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
/// Name of the output weights, if they are not the embedding table.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Every parameter of a model, in the order of gradients, optimizers and files.
pub fn shapes(config: &ModelConfig) -> Vec<Shape> {
    let shape = |name: String, size: &[usize]| Shape { name, size: size.iter().map(|size| *size as i64).collect() };
    let ModelConfig { vocabulary, hidden_size: hidden, .. } = *config;
    let mut shapes = vec![shape(EMBEDDING.to_owned(), &[vocabulary, hidden])];
    for layer in 0..config.layers {
        let [attention_norm, feed_forward_norm] = norms(layer);
        shapes.push(shape(attention_norm, &[hidden]));
        shapes.push(shape(feed_forward_norm, &[hidden]));
        for Map { name, rows, columns, bias, .. } in maps(config, layer).into_list() {
            shapes.push(shape(format!("{name}.weight"), &[rows, columns]));
            if bias {
                shapes.push(shape(format!("{name}.bias"), &[rows]));
            }
        }
    }
    shapes.push(shape(NORM.to_owned(), &[hidden]));
    if !config.tied_embeddings {
        shapes.push(shape(HEAD.to_owned(), &[vocabulary, hidden]));
    }
    shapes
}

/// Whether a tensor of this name may be in a checkpoint without being a parameter, as the configuration determines it.
pub fn is_redundant(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

/// A linear map with an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Adapted {
    /// Name in a checkpoint, without `.weight`.
    pub(crate) name: String,
    /// Size of the map's output.
    pub(crate) rows: i64,
    /// Size of the map's input.
    pub(crate) columns: i64,
}

/// Every linear map of a model that has such an adapter, in order.
pub(crate) fn adapted(config: &ModelConfig, lora: &Lora) -> Vec<Adapted> {
    let maps = (0..config.layers).flat_map(|layer| maps(config, layer).into_list());
    maps.filter(|map| lora.targets().contains(&map.projection))
        .map(|Map { name, rows, columns, .. }| Adapted { name, rows: rows as i64, columns: columns as i64 })
        .collect()
}

/// A linear map of a layer as stored in a checkpoint.
struct Map {
    projection: Projection,
    name: String,
    rows: usize,
    columns: usize,
    bias: bool,
}

fn norms(layer: usize) -> [String; 2] {
    ["input", "post_attention"].map(|place| format!("model.layers.{layer}.{place}_layernorm.weight"))
}

fn maps(config: &ModelConfig, layer: usize) -> Maps<Map> {
    let ModelConfig { hidden_size: hidden, intermediate_size: wide, biases, .. } = *config;
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let map = |block: &str, projection, rows, columns, bias| Map {
        projection,
        name: format!("model.layers.{layer}.{block}.{projection}"),
        rows,
        columns,
        bias,
    };
    Maps {
        query: map("self_attn", Projection::Query, queries, hidden, biases.qkv),
        key: map("self_attn", Projection::Key, keys, hidden, biases.qkv),
        value: map("self_attn", Projection::Value, keys, hidden, biases.qkv),
        output: map("self_attn", Projection::Output, hidden, queries, biases.output),
        gate: map("mlp", Projection::Gate, wide, hidden, biases.feed_forward),
        up: map("mlp", Projection::Up, wide, hidden, biases.feed_forward),
        down: map("mlp", Projection::Down, hidden, wide, biases.feed_forward),
    }
}

impl Transformer {
    /// Builds a model from weights, each of the type and on the device in which the model computes.
    ///
    /// # Errors
    ///
    /// [`LmError::Weight`] for a missing parameter.
    pub fn new(config: ModelConfig, mut weights: Weights) -> Result<Self, LmError> {
        let embedding = weights.take(EMBEDDING)?;
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let [attention_norm, feed_forward_norm] = norms(layer);
            let norms = [weights.take(&attention_norm)?, weights.take(&feed_forward_norm)?];
            let maps = maps(&config, layer).try_map(|Map { name, bias, .. }| {
                let weight = weights.take(&format!("{name}.weight"))?;
                let bias = bias.then(|| weights.take(&format!("{name}.bias"))).transpose()?;
                Ok::<_, LmError>(Linear { weight, bias, low_rank: None })
            })?;
            layers.push(Layer::new(&config, norms, maps));
        }
        let norm = Norm::new(&config, weights.take(NORM)?);
        let head = if config.tied_embeddings { None } else { Some(weights.take(HEAD)?) };
        Ok(Self { config, embedding, layers, norm, head, lora: None })
    }

    /// Adds adapters to the model, from tensors by their names in PEFT's files, and replaces existing ones. The model's
    /// own weights are frozen from then on.
    ///
    /// # Errors
    ///
    /// [`LmError::Weight`] for a missing tensor, and [`LmError::Engine`].
    pub fn adapt(&mut self, lora: Lora, mut weights: Weights) -> Result<(), LmError> {
        let (kind, device) = (self.kind(), self.device());
        let mut take = |map: &str, side| -> Result<Tensor, LmError> {
            Ok(weights.take(&tensor_name(map, side))?.f_to_kind(kind)?.f_to_device(device)?)
        };
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for (linear, map) in layer.maps_mut().into_iter().zip(maps(&self.config, index).into_list()) {
                linear.low_rank = match lora.targets().contains(&map.projection) {
                    true => Some(LowRank {
                        inner: take(&map.name, Side::A)?,
                        outer: take(&map.name, Side::B)?,
                        scaling: lora.scaling(),
                    }),
                    false => None,
                };
            }
        }
        self.lora = Some(lora);
        Ok(())
    }

    /// Reads a model's folder, for computation in `dtype` on this device. If output weights differ from the embedding
    /// table, they are used even if the configuration ties the two: `tied_embeddings` is then false.
    ///
    /// # Errors
    ///
    /// As [`read_config`], [`Weights::read`] and [`Weights::tie`].
    pub fn read(folder: &Path, dtype: Dtype, device: Device) -> Result<Self, LmError> {
        let mut config = read_config(folder)?;
        let mut weights = Weights::read(folder, &config, dtype, device)?;
        if config.tied_embeddings {
            config.tied_embeddings = weights.tie()?;
        }
        Self::new(config, weights)
    }

    /// Copies the model with each of its tensors converted, and with these adapters.
    fn map(
        &self,
        convert: &Convert<'_>,
        linear: &dyn Fn(&Linear) -> Result<Linear, LmError>,
        lora: Option<&Lora>,
    ) -> Result<Self, LmError> {
        Ok(Self {
            config: self.config.clone(),
            embedding: convert(&self.embedding)?,
            layers: self.layers.iter().map(|layer| layer.map(convert, linear)).collect::<Result<_, _>>()?,
            norm: self.norm.map(convert)?,
            head: self.head.as_ref().map(convert).transpose()?,
            lora: lora.cloned(),
        })
    }

    /// A second handle of the same weights: a change in one shows in the other. It tracks no gradient.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn view(&self) -> Result<Self, LmError> {
        let view =
            |linear: &Linear| linear.map(&share, linear.low_rank.as_ref().map(|own| own.map(&share)).transpose()?);
        self.map(&share, &view, self.lora.as_ref())
    }

    /// The model on the same weights without its adapters.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn base(&self) -> Result<Self, LmError> {
        self.map(&share, &|linear| linear.map(&share, None), None)
    }

    /// Copies the model with its weights. If it has adapters, only the adapters are copied, because all other weights
    /// are frozen.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn copy(&self) -> Result<Self, LmError> {
        let convert: &Convert<'_> = if self.lora.is_some() { &share } else { &copy };
        let own =
            |linear: &Linear| linear.map(convert, linear.low_rank.as_ref().map(|own| own.map(&copy)).transpose()?);
        self.map(convert, &own, self.lora.as_ref())
    }

    /// A model without adapters that computes the same function, up to rounding.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn merged(&self) -> Result<Self, LmError> {
        let merge = |linear: &Linear| match &linear.low_rank {
            Some(low_rank) => linear
                .map(&share, None)
                .and_then(|plain| Ok(Linear { weight: low_rank.merge(&linear.weight)?, ..plain })),
            None => linear.map(&share, None),
        };
        self.map(&share, &merge, None)
    }

    /// Shape of the adapters, if the model has some.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// A and B of each adapted map, in the order of [`Lora::shapes`].
    pub fn adapters(&self) -> Vec<&Tensor> {
        self.layers.iter().flat_map(Layer::adapters).collect()
    }

    /// Trained parameters with their names: the adapters if there are some, or else every parameter.
    pub fn trained(&self) -> Vec<(Shape, &Tensor)> {
        match &self.lora {
            Some(lora) => lora.shapes(&self.config).into_iter().zip(self.adapters()).collect(),
            None => shapes(&self.config).into_iter().zip(self.parameters()).collect(),
        }
    }

    /// Shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Fingerprint of the shape and of every number in it, including those of adapters.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn fingerprint(&self) -> Result<blake3::Hash, LmError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?} {:?}", self.config, self.lora).as_bytes());
        for tensor in self.parameters().into_iter().chain(self.adapters()) {
            hasher.update(&bytes(tensor, self.dtype())?);
        }
        Ok(hasher.finalize())
    }

    /// Type in which the model computes, as files name it.
    pub fn dtype(&self) -> Dtype {
        Dtype::of(self.kind())
    }

    /// Type in which the model computes.
    pub fn kind(&self) -> Kind {
        self.embedding.kind()
    }

    /// Device on which the model computes.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// Parameters in the order of [`shapes`], without those of adapters.
    pub fn parameters(&self) -> Vec<&Tensor> {
        let layers = self.layers.iter().flat_map(Layer::parameters);
        let ends = [&self.norm.weight].into_iter().chain(&self.head);
        [&self.embedding].into_iter().chain(layers).chain(ends).collect()
    }

    /// Output weights, [vocabulary, hidden_size].
    pub fn head(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Rows of the embedding table for tokens in the layout's order, [tokens, hidden_size]. No gradient is tracked.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn embed(&self, tokens: &Tensor) -> Result<Tensor, LmError> {
        Ok(self.embedding.f_index_select(0, tokens)?.f_detach()?)
    }

    /// Scales embeddings to the input of the layers, if the architecture does so.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn scale_embeddings(&self, embeddings: &Tensor) -> Result<Tensor, LmError> {
        match self.config.architecture {
            Architecture::Gemma => {
                // The factor is rounded to the type in which the model computes before the product.
                let scale = Tensor::from((self.config.hidden_size as f64).sqrt()).f_to_kind(embeddings.f_kind()?)?;
                Ok(embeddings.f_mul_scalar(scale.f_double_value(&[])?)?)
            }
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => Ok(embeddings.shallow_clone()),
        }
    }

    /// Rotary angles of positions.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn angles(&self, positions: &[i64]) -> Result<Angles, LmError> {
        Angles::new(&self.config.rope, self.config.head_dim, positions, self.kind(), self.device())
    }

    fn layer(&self, index: usize, x: &Tensor, angles: &Angles, layout: &Layout) -> Result<Tensor, LmError> {
        let window = self.config.windows[index];
        self.layers[index].forward(x, angles, &mut |heads| heads.attend(layout, window))
    }

    /// Runs tokens through every layer, with `attend(layer, heads)` as the attention of each, and returns normed hidden
    /// states of shape [rows, tokens, hidden_size].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`], and those of `attend`.
    pub fn forward_with(
        &self,
        tokens: &Tensor,
        angles: &Angles,
        attend: &mut dyn FnMut(usize, Heads) -> Result<Tensor, LmError>,
    ) -> Result<Tensor, LmError> {
        let (rows, length) = tokens.size2()?;
        let embeddings = self.embed(&tokens.f_flatten(0, 1)?)?;
        let mut x = self.scale_embeddings(&embeddings)?.f_view([rows, length, -1])?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, angles, &mut |heads| attend(index, heads))?;
        }
        self.norm.forward(&x)
    }
}

fn share(tensor: &Tensor) -> Result<Tensor, LmError> {
    Ok(tensor.f_detach()?)
}

/// Copies a tensor into new memory.
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor, LmError> {
    let mut copy = tensor.f_detach()?.f_empty_like()?;
    copy.f_copy_(&tensor.f_detach()?)?;
    Ok(copy)
}
