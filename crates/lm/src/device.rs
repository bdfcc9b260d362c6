//! Where a model computes.
//!
//! The linker leaves out what no symbol of ours asks for, and so the half of libtorch that knows CUDA. It is opened when a CUDA
//! device is asked for: one binary runs with and without a GPU.

use std::error::Error;

use tch::{Cuda, Device};

use crate::error::LmError;

/// The half of libtorch that knows CUDA.
const LIBRARY: &str = "libtorch_cuda.so";

/// The device of this name: `cpu`, `cuda` or `cuda:1`.
///
/// # Errors
///
/// [`LmError::Device`] for another name, and for a CUDA device that is not there.
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
        // What is missing is told by the error below it.
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        refuse(format!("{cause}; crates/lm/libtorch.sh --cuda gets what a GPU needs"))
    })?;
    match usize::try_from(Cuda::device_count()).unwrap_or(0) {
        0 => Err(refuse("no CUDA device answers on this machine; cpu does".to_owned())),
        count if index >= count => Err(refuse(format!("expected an index below {count}, the CUDA devices here"))),
        _ => Ok(Device::Cuda(index)),
    }
}

/// Opens the library for as long as the program runs, with its symbols for every other library to see.
#[allow(unsafe_code)]
fn open() -> Result<(), libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library is PyTorch's own, of the version that this program is linked to, and its initialisers do nothing but
    // register kernels. It is never closed, so nothing of it is used after its end.
    let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) }?;
    std::mem::forget(library);
    Ok(())
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
