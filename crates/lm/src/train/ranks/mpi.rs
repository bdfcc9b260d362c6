//! Processes on CPUs, connected by MPI.

use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use mpi::{Count, initialize};
use tch::Tensor;

use crate::error::LmError;
use crate::link::Link;

/// Number of elements that are summed at a time.
const PART: usize = 1 << 22;

/// A process that `mpirun` started.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    /// MPI's environment, which is finalized when it is dropped.
    _universe: Universe,
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "MPI process {} of {}", self.rank(), self.size())
    }
}

impl Mpi {
    pub(super) fn join() -> Result<Self, LmError> {
        let universe =
            initialize().ok_or_else(|| LmError::Link { problem: "MPI is initialized already".to_owned() })?;
        Ok(Self { world: universe.world(), _universe: universe })
    }
}

impl Link for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, LmError> {
        let too_long =
            |_| LmError::Link { problem: format!("MPI sends at most 2 GiB at a time, got {} bytes", own.len()) };
        let mut lengths: Vec<Count> = vec![0; self.size()];
        self.world.all_gather_into(&Count::try_from(own.len()).map_err(too_long)?, &mut lengths[..]);
        let begins: Vec<Count> = lengths
            .iter()
            .scan(0, |end: &mut Count, length| {
                let begin = *end;
                *end = end.checked_add(*length)?;
                Some(begin)
            })
            .collect();
        if begins.len() < lengths.len() {
            return Err(LmError::Link { problem: "MPI gathers at most 2 GiB at a time".to_owned() });
        }
        let mut all = vec![0_u8; lengths.iter().map(|length| *length as usize).sum()];
        let mut parts = PartitionMut::new(&mut all[..], &lengths[..], &begins[..]);
        self.world.all_gather_varcount_into(own, &mut parts);
        let part = |(begin, length): (&Count, &Count)| all[*begin as usize..(begin + length) as usize].to_vec();
        Ok(begins.iter().zip(&lengths).map(part).collect())
    }

    fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError> {
        for tensor in tensors {
            let mut own = vec![0.0_f32; tensor.numel()];
            tensor.f_copy_data(&mut own, tensor.numel())?;
            let mut sum = vec![0.0_f32; own.len()];
            for (own, sum) in own.chunks(PART).zip(sum.chunks_mut(PART)) {
                self.world.all_reduce_into(own, sum, SystemOperation::sum());
            }
            let sum = Tensor::f_from_slice(&sum)?.f_view_as(tensor)?;
            tensor.f_detach()?.f_copy_(&sum)?;
        }
        Ok(())
    }
}
