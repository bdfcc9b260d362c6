//! Adds low-rank adapters to the weights of their base model, which makes a new model.

use std::path::Path;

use tch::Device;
use text::chat::CHAT_TEMPLATE_FILE;

use crate::checkpoint::adapter::{self, Use};
use crate::checkpoint::config::Dtype;
use crate::checkpoint::folder::{Appearing, Inherited, fill, stored_dtype, whole, within};
use crate::checkpoint::generation_config::GENERATION_CONFIG_FILE;
use crate::error::LmError;
use crate::transformer::model::Transformer;

/// Writes a new folder `target` with the model in `model` and the adapters in `adapter` added to its weights, rounded
/// to `dtype` or to the type in which the model is stored. A chat template or a `generation_config.json` beside the
/// adapters is copied to it.
///
/// # Errors
///
/// [`LmError::Taken`] if `target` exists already, before anything is read; as [`Transformer::read`], [`adapter::apply`]
/// and [`folder::write`](crate::checkpoint::folder::write).
pub fn merge(model: &Path, adapter: &Path, target: &Path, dtype: Option<Dtype>) -> Result<(), LmError> {
    whole(target, Appearing::New, |folder| {
        let dtype = dtype.map_or_else(|| stored_dtype(model), Ok)?;
        // Adds in 32 bits, so that the sum is rounded only once.
        let mut merged = Transformer::read(model, Dtype::Float32, Device::Cpu)?;
        adapter::apply(&mut merged, adapter, Use::Applied)?;
        let inherited = Inherited {
            chat_template: within(adapter, CHAT_TEMPLATE_FILE)?,
            generation_config: within(adapter, GENERATION_CONFIG_FILE)?,
            ..Inherited::new(model)
        };
        fill(folder, &inherited, &merged.merged()?.trained(), dtype)
    })
}
