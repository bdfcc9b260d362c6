//! Several processes that train one model together, each on a GPU of its own or, for tests, on a CPU.
//!
//! Processes on GPUs are started by `torchrun` and connected by NCCL; processes on CPUs are started by `mpirun` and
//! connected by MPI, if the program is built with the feature `mpi`. Each has the whole model and all data, and
//! computes its share of each step's micro-batches, so that losses and gradients do not depend on the number of
//! processes, except for the order of sums. The first process writes the files.

#[cfg(feature = "mpi")]
mod mpi;

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};
use training::{Given, Ranks, agree};

use crate::cuda::Nccl;
use crate::device::device;
use crate::error::{LmError, refuse_setting};
use crate::link::Link;

/// Processes of a run.
#[derive(Debug)]
pub struct Processes {
    link: Box<dyn Link>,
    /// Whether one of the processes has failed, after which no exchange takes place.
    apart: Cell<bool>,
}

impl Processes {
    /// Processes that are connected by a link.
    pub fn new(link: impl Link + 'static) -> Self {
        Self { link: Box::new(link), apart: Cell::new(false) }
    }

    /// Sums the tensors of all processes in place, as [`Link::sum`].
    ///
    /// # Errors
    ///
    /// An error of the link.
    pub fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError> {
        self.link.sum(tensors)
    }

    /// Reports to the other processes, at their next exchange, why this process failed. Does nothing if a failure was
    /// already reported.
    pub fn leave(&self, error: &LmError) {
        if !self.apart.get() {
            // A failed report can be ignored, as the process ends.
            let _told = self.gather(Err(error.to_string()));
        }
    }
}

impl Ranks<LmError> for Processes {
    fn rank(&self) -> usize {
        self.link.rank()
    }

    fn size(&self) -> usize {
        self.link.size()
    }

    fn gather(&self, own: Given) -> Result<Vec<Given>, LmError> {
        let unlike = |error: postcard::Error| LmError::Link { problem: error.to_string() };
        let all = self.link.gather(&postcard::to_allocvec(&own).map_err(unlike)?)?;
        let all: Vec<Given> =
            all.iter().map(|given| postcard::from_bytes(given)).collect::<Result<_, _>>().map_err(unlike)?;
        self.apart.set(self.apart.get() || all.iter().any(Result::is_err));
        Ok(all)
    }
}

/// This process of a run.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Device that this process computes on.
    pub device: Device,
    /// All processes of the run; `None` if there is only one.
    pub processes: Option<Rc<Processes>>,
}

impl Worker {
    /// Joins the run that the environment describes, with the device of this name.
    ///
    /// # Errors
    ///
    /// [`LmError::Setting`] for an invalid environment, [`LmError::Device`] as [`device`], and [`LmError::Link`].
    pub fn join(name: &str) -> Result<Self, LmError> {
        let (device, processes) = join(name)?;
        Ok(Self { device, processes: processes.map(Rc::new) })
    }

    /// Whether this process is the one that writes files and messages.
    pub fn is_first(&self) -> bool {
        self.processes.as_ref().is_none_or(|processes| processes.rank() == 0)
    }

    /// This process's share of the micro-batches: contiguous ranges in the order of ranks.
    pub fn share(&self, micro_batches: usize) -> Range<usize> {
        let (rank, size) = self.processes.as_ref().map_or((0, 1), |processes| (processes.rank(), processes.size()));
        rank * micro_batches / size..(rank + 1) * micro_batches / size
    }

    /// Calls a function in the first process, and returns its result in all of them.
    ///
    /// # Errors
    ///
    /// The first process's own, and [`LmError::Process`] in the others.
    pub fn first<T>(&self, answer: impl FnOnce() -> Result<T, LmError>) -> Result<T, LmError>
    where
        T: Serialize + DeserializeOwned,
    {
        let own = if self.is_first() { answer().map(Some) } else { Ok(None) };
        let answered = self.agree(own)?.into_iter().next().flatten();
        answered.ok_or_else(|| LmError::Link { problem: "the first process sent no result".to_owned() })
    }

    /// Whether the condition holds in any process.
    ///
    /// # Errors
    ///
    /// [`LmError::Process`] and [`LmError::Link`].
    pub fn any(&self, own: bool) -> Result<bool, LmError> {
        Ok(self.agree(Ok(own))?.contains(&true))
    }

    /// Fails if a value is not the same in all processes.
    ///
    /// # Errors
    ///
    /// [`LmError::Process`] naming the value.
    pub fn same<T>(&self, what: &str, own: T) -> Result<(), LmError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let all = self.agree(Ok(own))?;
        match all.iter().position(|other| *other != all[0]) {
            Some(rank) => Err(LmError::Process { rank, problem: format!("its {what} differs from that of process 0") }),
            None => Ok(()),
        }
    }

    /// Reports to the other processes why this process failed.
    pub fn leave(&self, error: &LmError) {
        if let Some(processes) = &self.processes {
            processes.leave(error);
        }
    }

    fn agree<T: Serialize + DeserializeOwned>(&self, own: Result<T, LmError>) -> Result<Vec<T>, LmError> {
        agree(self.processes.as_deref().map(|processes| processes as &dyn Ranks<LmError>), own)
    }
}

/// Parses the name of a device, and connects to the processes of the run that the environment describes.
fn join(name: &str) -> Result<(Device, Option<Processes>), LmError> {
    let refuse = |problem: &str| LmError::Device { name: name.to_owned(), problem: problem.to_owned() };
    // Open MPI and MPICH set these to the number of processes.
    let started = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().find_map(|variable| {
        let size = read::<usize>(variable).transpose()?;
        Some(size.map(|size| (variable, size)))
    });
    if let Some((variable, size)) = started.transpose()?.filter(|(_, size)| *size > 1) {
        if name != "cpu" {
            return Err(refuse("expected cpu, as mpirun starts processes on CPUs; use torchrun for GPUs"));
        }
        return Ok((Device::Cpu, Some(join_by_mpi(variable, size)?)));
    }
    let size = match read::<usize>("WORLD_SIZE")? {
        None | Some(1) => return Ok((device(name)?, None)),
        Some(size) => size,
    };
    let required = |variable| {
        read::<usize>(variable)?.filter(|rank| *rank < size).ok_or_else(|| {
            let given = std::env::var(variable).unwrap_or_else(|_| "nothing".to_owned());
            refuse_setting(variable, format!("a whole number below WORLD_SIZE = {size}"), given)
        })
    };
    let (rank, local) = (required("RANK")?, required("LOCAL_RANK")?);
    match name {
        "cuda" => {}
        "cpu" => {
            return Err(refuse("processes on CPUs are joined by MPI: build with --features mpi and start with mpirun"));
        }
        _ => return Err(refuse("expected cuda, as LOCAL_RANK selects the GPU of this process")),
    }
    let found = device(&format!("cuda:{local}"))?;
    let address = std::env::var("MASTER_ADDR").unwrap_or_else(|_| "127.0.0.1".to_owned());
    // The port itself is used by torchrun's own store.
    let port = read::<u16>("MASTER_PORT")?.unwrap_or(29500).wrapping_add(1);
    let nccl = Nccl::join(local, rank, size, &format!("{address}:{port}"))?;
    Ok((found, Some(Processes::new(nccl))))
}

#[cfg(feature = "mpi")]
fn join_by_mpi(_variable: &str, _size: usize) -> Result<Processes, LmError> {
    Ok(Processes::new(mpi::Mpi::join()?))
}

#[cfg(not(feature = "mpi"))]
fn join_by_mpi(variable: &'static str, size: usize) -> Result<Processes, LmError> {
    let allowed = "1, unless the program is built with --features mpi";
    Err(refuse_setting(variable, allowed, size))
}

/// Parses the number in an environment variable, if it is set.
fn read<T: FromStr>(variable: &'static str) -> Result<Option<T>, LmError> {
    let Ok(given) = std::env::var(variable) else { return Ok(None) };
    match given.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(refuse_setting(variable, "a whole number", given)),
    }
}
