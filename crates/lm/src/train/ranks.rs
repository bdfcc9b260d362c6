//! Processes that train one model together, each on a GPU of its own or, for a test, on a CPU.
//!
//! On GPUs they are started as `torchrun` starts them and joined by NCCL; on CPUs they are started by `mpirun` and joined by MPI,
//! where the program is built with the feature `mpi`. Each has the whole model and the whole data, and takes its share of each step's
//! micro-batches, so that no loss and no gradient depends on how many there are, but for the order of sums. The first of them
//! writes.

#[cfg(feature = "mpi")]
mod mpi;

use std::cell::Cell;
use std::fmt::Debug;
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

/// What joins processes.
pub trait Link: Debug {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What each process gives, in the order of their ranks.
    ///
    /// # Errors
    ///
    /// [`LmError::Link`] and [`LmError::Engine`].
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, LmError>;

    /// Adds up the tensors of all processes, in place. They are in 32 bits and contiguous, and everywhere of the same shapes.
    ///
    /// # Errors
    ///
    /// [`LmError::Link`] and [`LmError::Engine`].
    fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError>;
}

/// The processes of a run.
#[derive(Debug)]
pub struct Processes {
    link: Box<dyn Link>,
    /// Whether one of them has said that it cannot go on. Nobody listens after that.
    apart: Cell<bool>,
}

impl Processes {
    /// Those that a link joins.
    pub fn new(link: impl Link + 'static) -> Self {
        Self { link: Box::new(link), apart: Cell::new(false) }
    }

    /// As [`Link::sum`].
    ///
    /// # Errors
    ///
    /// Those of the link.
    pub fn sum(&self, tensors: &[&Tensor]) -> Result<(), LmError> {
        self.link.sum(tensors)
    }

    /// Tells the others, at whatever exchange they are, why this process cannot go on; unless they know of it, or of another.
    pub fn leave(&self, error: &LmError) {
        if !self.apart.get() {
            // What cannot be told need not be: the process ends.
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

/// A process of a run.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Where it computes.
    pub device: Device,
    /// The run's processes; none where it is alone.
    pub processes: Option<Rc<Processes>>,
}

impl Worker {
    /// This process, on the device of this name, among those that its environment tells of.
    ///
    /// # Errors
    ///
    /// [`LmError::Setting`] for an environment that is none, [`LmError::Device`] as [`device`], and [`LmError::Link`].
    pub fn join(name: &str) -> Result<Self, LmError> {
        let (device, processes) = join(name)?;
        Ok(Self { device, processes: processes.map(Rc::new) })
    }

    /// Whether this process is the one that writes and tells.
    pub fn is_first(&self) -> bool {
        self.processes.as_ref().is_none_or(|processes| processes.rank() == 0)
    }

    /// Its share of so many micro-batches: those of all processes follow one another in the order of their ranks.
    pub fn share(&self, micro_batches: usize) -> Range<usize> {
        let (rank, size) = self.processes.as_ref().map_or((0, 1), |processes| (processes.rank(), processes.size()));
        rank * micro_batches / size..(rank + 1) * micro_batches / size
    }

    /// What the first process answers, in all of them.
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
        answered.ok_or_else(|| LmError::Link { problem: "the first process did not answer".to_owned() })
    }

    /// Whether it is so in any process.
    ///
    /// # Errors
    ///
    /// [`LmError::Process`] and [`LmError::Link`].
    pub fn any(&self, own: bool) -> Result<bool, LmError> {
        Ok(self.agree(Ok(own))?.contains(&true))
    }

    /// Refuses what is not the same in all processes.
    ///
    /// # Errors
    ///
    /// [`LmError::Process`] naming what differs.
    pub fn same<T>(&self, what: &str, own: T) -> Result<(), LmError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let all = self.agree(Ok(own))?;
        match all.iter().position(|other| *other != all[0]) {
            Some(rank) => Err(LmError::Process { rank, problem: format!("its {what} is not that of process 0") }),
            None => Ok(()),
        }
    }

    /// Tells the others why this process cannot go on.
    pub fn leave(&self, error: &LmError) {
        if let Some(processes) = &self.processes {
            processes.leave(error);
        }
    }

    fn agree<T: Serialize + DeserializeOwned>(&self, own: Result<T, LmError>) -> Result<Vec<T>, LmError> {
        agree(self.processes.as_deref().map(|processes| processes as &dyn Ranks<LmError>), own)
    }
}

/// The device of this name for this process, and the processes of its run.
fn join(name: &str) -> Result<(Device, Option<Processes>), LmError> {
    let refuse = |problem: &str| LmError::Device { name: name.to_owned(), problem: problem.to_owned() };
    // Open MPI and MPICH say in these how many they started.
    let started = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().find_map(|variable| {
        let size = read::<usize>(variable).transpose()?;
        Some(size.map(|size| (variable, size)))
    });
    if let Some((variable, size)) = started.transpose()?.filter(|(_, size)| *size > 1) {
        if name != "cpu" {
            return Err(refuse("processes that mpirun starts compute on cpu; torchrun starts those on GPUs"));
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
        _ => return Err(refuse("expected cuda, as LOCAL_RANK says which of them is this process's")),
    }
    let found = device(&format!("cuda:{local}"))?;
    let address = std::env::var("MASTER_ADDR").unwrap_or_else(|_| "127.0.0.1".to_owned());
    // The port itself is that of torchrun's own store.
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

/// The number in a variable of the environment, if it is there.
fn read<T: FromStr>(variable: &'static str) -> Result<Option<T>, LmError> {
    let Ok(given) = std::env::var(variable) else { return Ok(None) };
    match given.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(refuse_setting(variable, "a whole number", given)),
    }
}
