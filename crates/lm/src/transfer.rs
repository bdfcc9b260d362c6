//! Transfers of numbers to a device.

use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use crate::error::LmError;

/// Copies numbers into a tensor on a device. Copies to a GPU are asynchronous.
///
/// # Errors
///
/// [`LmError::Engine`] for a failure of libtorch.
pub fn send<T: Element>(values: &[T], kind: Kind, device: Device) -> Result<Tensor, LmError> {
    let here = Tensor::f_from_slice(values)?.f_to_kind(kind)?;
    if !device.is_cuda() {
        return Ok(here);
    }
    // An asynchronous copy needs pinned memory.
    Ok(here.f_pin_memory(device)?.f_to_device_(device, kind, true, false)?)
}
