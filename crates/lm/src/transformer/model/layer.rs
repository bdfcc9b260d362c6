//! One layer: attention and a gated feed-forward network, each after a norm and added to the residual stream.

use tch::{Kind, Tensor};

use super::attention::Heads;
use super::low_rank::LowRank;
use super::rope::Angles;
use crate::checkpoint::config::{Activation, Architecture, ModelConfig};
use crate::error::LmError;

/// Conversion of a tensor for another copy of the model.
pub(super) type Convert<'a> = dyn Fn(&Tensor) -> Result<Tensor, LmError> + 'a;

/// Root-mean-square norm.
#[derive(Debug)]
pub struct Norm {
    pub(super) weight: Tensor,
    epsilon: f64,
    /// Whether to multiply by 1 + w instead of w.
    centred: bool,
}

/// A linear map.
#[derive(Debug)]
pub struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    /// Low-rank adapter of the map, if it has one.
    pub(super) low_rank: Option<LowRank>,
}

/// One layer of a transformer.
#[derive(Debug)]
pub struct Layer {
    attention_norm: Norm,
    feed_forward_norm: Norm,
    maps: Maps<Linear>,
    activation: Activation,
    head_dim: i64,
}

impl Norm {
    pub(super) fn new(config: &ModelConfig, weight: Tensor) -> Self {
        Self { weight, epsilon: config.rms_norm_eps, centred: config.architecture == Architecture::Gemma }
    }

    pub(super) fn map(&self, convert: &Convert<'_>) -> Result<Self, LmError> {
        Ok(Self { weight: convert(&self.weight)?, ..*self })
    }

    /// Computes x w / √(mean x² + ε) in 32 bits, and returns it in the type of x.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, LmError> {
        let kind = x.f_kind()?;
        let wide = x.f_to_kind(Kind::Float)?;
        let square = wide.f_square()?.f_mean_dim([-1].as_slice(), true, None)?;
        let normed = wide.f_mul(&square.f_add_scalar(self.epsilon)?.f_rsqrt()?)?;
        Ok(if self.centred {
            normed.f_mul(&self.weight.f_to_kind(Kind::Float)?.f_add_scalar(1.0)?)?.f_to_kind(kind)?
        } else {
            normed.f_to_kind(kind)?.f_mul(&self.weight)?
        })
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor, LmError> {
        let y = x.f_linear(&self.weight, self.bias.as_ref())?;
        match &self.low_rank {
            Some(low_rank) => low_rank.add(&y, x),
            None => Ok(y),
        }
    }

    /// Copies the map with its tensors converted, and with another adapter or none.
    pub(super) fn map(&self, convert: &Convert<'_>, low_rank: Option<LowRank>) -> Result<Self, LmError> {
        Ok(Self { weight: convert(&self.weight)?, bias: self.bias.as_ref().map(convert).transpose()?, low_rank })
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.weight].into_iter().chain(&self.bias)
    }
}

/// Linear maps of a layer by their names in a checkpoint, in the order of its parameters.
#[derive(Debug)]
pub(super) struct Maps<T> {
    pub(super) query: T,
    pub(super) key: T,
    pub(super) value: T,
    pub(super) output: T,
    pub(super) gate: T,
    pub(super) up: T,
    pub(super) down: T,
}

impl<T> Maps<T> {
    pub(super) fn as_ref(&self) -> Maps<&T> {
        let Self { query, key, value, output, gate, up, down } = self;
        Maps { query, key, value, output, gate, up, down }
    }

    pub(super) fn into_list(self) -> [T; 7] {
        let Self { query, key, value, output, gate, up, down } = self;
        [query, key, value, output, gate, up, down]
    }

    pub(super) fn try_map<U, E>(self, mut convert: impl FnMut(T) -> Result<U, E>) -> Result<Maps<U>, E> {
        Ok(Maps {
            query: convert(self.query)?,
            key: convert(self.key)?,
            value: convert(self.value)?,
            output: convert(self.output)?,
            gate: convert(self.gate)?,
            up: convert(self.up)?,
            down: convert(self.down)?,
        })
    }
}

impl Layer {
    pub(super) fn new(
        config: &ModelConfig,
        [attention_norm, feed_forward_norm]: [Tensor; 2],
        maps: Maps<Linear>,
    ) -> Self {
        Self {
            attention_norm: Norm::new(config, attention_norm),
            feed_forward_norm: Norm::new(config, feed_forward_norm),
            maps,
            activation: config.activation,
            head_dim: config.head_dim as i64,
        }
    }

    /// Copies the layer with each of its norms and linear maps converted.
    pub(super) fn map(
        &self,
        convert: &Convert<'_>,
        linear: &dyn Fn(&Linear) -> Result<Linear, LmError>,
    ) -> Result<Self, LmError> {
        Ok(Self {
            attention_norm: self.attention_norm.map(convert)?,
            feed_forward_norm: self.feed_forward_norm.map(convert)?,
            maps: self.maps.as_ref().try_map(linear)?,
            ..*self
        })
    }

    /// Linear maps in the order of the parameters.
    pub(super) fn maps_mut(&mut self) -> [&mut Linear; 7] {
        let Maps { query, key, value, output, gate, up, down } = &mut self.maps;
        [query, key, value, output, gate, up, down]
    }

    /// Parameters in the order of [`super::shapes`].
    pub fn parameters(&self) -> Vec<&Tensor> {
        let Self { attention_norm, feed_forward_norm, maps, .. } = self;
        let maps = maps.as_ref().into_list().into_iter().flat_map(Linear::tensors);
        [&attention_norm.weight, &feed_forward_norm.weight].into_iter().chain(maps).collect()
    }

    /// A and B of each adapted map, in the order of [`crate::checkpoint::lora::Lora::shapes`].
    pub fn adapters(&self) -> Vec<&Tensor> {
        self.maps
            .as_ref()
            .into_list()
            .into_iter()
            .filter_map(|map| map.low_rank.as_ref())
            .flat_map(LowRank::tensors)
            .collect()
    }

    /// Output of the layer for hidden states `x` of shape [rows, tokens, hidden_size], with `attend` as its attention.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        angles: &Angles,
        attend: &mut dyn FnMut(Heads) -> Result<Tensor, LmError>,
    ) -> Result<Tensor, LmError> {
        let (rows, tokens, _) = x.size3()?;
        let normed = self.attention_norm.forward(x)?;
        let heads = |map: &Linear| -> Result<Tensor, LmError> {
            Ok(map.forward(&normed)?.f_view([rows, tokens, -1, self.head_dim])?.f_transpose(1, 2)?)
        };
        let query = angles.turn(&heads(&self.maps.query)?)?;
        let key = angles.turn(&heads(&self.maps.key)?)?;
        let seen = attend(Heads { query, key, value: heads(&self.maps.value)? })?;
        let seen = seen.f_transpose(1, 2)?.f_reshape([rows, tokens, -1])?;
        let x = x.f_add(&self.maps.output.forward(&seen)?)?;
        let normed = self.feed_forward_norm.forward(&x)?;
        let gate = self.maps.gate.forward(&normed)?;
        let gate = match self.activation {
            Activation::Silu => gate.f_silu()?,
            Activation::Gelu => gate.f_gelu("none")?,
            Activation::GeluPytorchTanh => gate.f_gelu("tanh")?,
        };
        let wide = gate.f_mul(&self.maps.up.forward(&normed)?)?;
        Ok(x.f_add(&self.maps.down.forward(&wide)?)?)
    }
}
