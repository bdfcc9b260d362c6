//! Loading of CUDA's libraries at run time. This is the only file with unsafe code.
//!
//! The linker drops a library none of whose symbols the program uses, and so would drop the CUDA half of libtorch.
//! Because it is opened at run time instead, one binary works with and without a GPU. cudarc opens NCCL in the same
//! way.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::nccl::{result, sys};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::link::Link;
use crate::transfer::send;

/// File name of the CUDA half of libtorch.
const LIBRARY: &str = "libtorch_cuda.so";

/// Opens the CUDA half of libtorch for the rest of the program, with its symbols visible to all other libraries.
pub(crate) fn open() -> Result<(), libloading::Error> {
    // SAFETY: the library is PyTorch's own, of the version that this program is linked to, and its initialisers do
    // nothing but register kernels. It is never closed, so nothing of it is used after its end.
    let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) }?;
    std::mem::forget(library);
    Ok(())
}

/// NCCL link of one process to the others of a run, each with a GPU of its own.
#[derive(Debug)]
pub(crate) struct Nccl {
    /// NCCL's communicator, which is released when the process ends.
    communicator: sys::ncclComm_t,
    /// CUDA context that makes the GPU current for this thread.
    _context: Arc<CudaContext>,
    device: Device,
    rank: usize,
    size: usize,
}

/// Turns the status of an NCCL call into a result.
fn answered(call: &str, answer: Result<result::NcclStatus, result::NcclError>) -> Result<(), LmError> {
    answer.map(|_| ()).map_err(|error| LmError::Link { problem: format!("NCCL: {call}: {:?}", error.0) })
}

impl Nccl {
    /// Connects to the other processes at this address and waits until all have joined.
    pub(crate) fn join(index: usize, rank: usize, size: usize, address: &str) -> Result<Self, LmError> {
        let fail = |problem: String| LmError::Link { problem };
        // SAFETY: opens the library, if it is there, and closes it.
        if !unsafe { sys::is_culib_present() } {
            return Err(fail("libnccl.so was not found; crates/lm/libtorch.sh --cuda downloads it".to_owned()));
        }
        let context = CudaContext::new(index).map_err(|error| fail(format!("cuda:{index}: {error}")))?;
        if std::env::var_os("NCCL_COMM_ID").is_none() {
            // SAFETY: a run joins before it starts any other thread that reads the environment.
            unsafe { std::env::set_var("NCCL_COMM_ID", address) };
        }
        let id = result::get_uniqueid().map_err(|error| fail(format!("NCCL: ncclGetUniqueId: {:?}", error.0)))?;
        let (own, all) = (rank as c_int, size as c_int);
        let mut communicator = std::ptr::null_mut();
        // SAFETY: the pointer is that of a local variable, which is written to before the call returns.
        answered("ncclCommInitRank", unsafe { result::comm_init_rank(&raw mut communicator, all, id, own) })?;
        Ok(Self { communicator, _context: context, device: Device::Cuda(index), rank, size })
    }

    /// Gathers the same number of values from each process, concatenated in the order of ranks.
    fn gather_equal(&self, own: &Tensor) -> Result<Tensor, LmError> {
        let (own, kind) = (own.f_contiguous()?, own.f_kind()?);
        let stored = if kind == Kind::Uint8 { sys::ncclDataType_t::ncclUint8 } else { sys::ncclDataType_t::ncclInt64 };
        let all = Tensor::f_empty([self.size as i64 * own.numel() as i64], (kind, self.device))?;
        // SAFETY: both tensors are contiguous, of this kind and on this GPU, and hold as many numbers as are sent and
        // received. The null stream is libtorch's own here, so that what it does before and after comes before and
        // after.
        answered("ncclAllGather", unsafe {
            let (from, to): (*const c_void, *mut c_void) = (own.data_ptr(), all.data_ptr());
            result::all_gather(from, to, own.numel(), stored, self.communicator, std::ptr::null_mut())
        })?;
        Ok(all.f_to_device(Device::Cpu)?)
    }
}

impl Link for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, LmError> {
        let length = send(&[own.len() as i64], Kind::Int64, self.device)?;
        let lengths = Vec::<i64>::try_from(&self.gather_equal(&length)?)?;
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut padded = own.to_vec();
        padded.resize(longest, 0);
        let all = self.gather_equal(&send(&padded, Kind::Uint8, self.device)?)?;
        let all = Vec::<u8>::try_from(&all)?;
        Ok(all.chunks(longest.max(1)).zip(lengths).map(|(part, length)| part[..length as usize].to_vec()).collect())
    }

    fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError> {
        answered("ncclGroupStart", result::group_start())?;
        for tensor in tensors {
            debug_assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float);
            let (memory, stored) = (tensor.data_ptr(), sys::ncclDataType_t::ncclFloat32);
            // SAFETY: the tensor is contiguous, in 32 bits and on this GPU; the sum may be where the numbers were. The
            // null stream is libtorch's own here.
            answered("ncclAllReduce", unsafe {
                let (count, operation) = (tensor.numel(), sys::ncclRedOp_t::ncclSum);
                let stream = std::ptr::null_mut();
                result::all_reduce(memory, memory, count, stored, operation, self.communicator, stream)
            })?;
        }
        answered("ncclGroupEnd", result::group_end())
    }
}
