//! The device that a model computes on: the CPU or a GPU.

use std::error::Error;

use tch::{Cuda, Device};

use crate::cuda::open;
use crate::error::LmError;

/// Parses the name of a device: `cpu`, `cuda` or `cuda:1`.
///
/// # Errors
///
/// [`LmError::Device`] for another name, and for a CUDA device that this machine does not have.
pub fn device(name: &str) -> Result<Device, LmError> {
    let refuse = |problem: String| LmError::Device { name: name.to_owned(), problem };
    let index = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => 0,
        Some(("cuda", index)) => {
            index.parse::<usize>().map_err(|_| refuse("expected cpu, cuda or cuda:INDEX".to_owned()))?
        }
        _ => return Err(refuse("expected cpu, cuda or cuda:INDEX".to_owned())),
    };
    open().map_err(|error| {
        // The inner error names what is missing.
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        refuse(format!("{cause}; crates/lm/libtorch.sh --cuda downloads what a GPU needs"))
    })?;
    match usize::try_from(Cuda::device_count()).unwrap_or(0) {
        0 => Err(refuse("no CUDA device was found on this machine; use cpu".to_owned())),
        count if index >= count => {
            Err(refuse(format!("expected an index below {count}, the number of CUDA devices here")))
        }
        _ => Ok(Device::Cuda(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_device_are_refused() {
        assert_eq!(device("cpu").unwrap(), Device::Cpu);
        for name in ["gpu", "cuda:x", "cpu:0", ""] {
            let message = device(name).unwrap_err().to_string();
            assert_eq!(message, format!("device \"{name}\": expected cpu, cuda or cuda:INDEX"));
        }
    }
}
