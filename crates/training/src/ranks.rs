//! Several processes that take a step together, each with a copy of the policy and micro-batches of its own.
//!
//! They exchange counts, losses and columns, in the order of their ranks. Each process then computes the same from the
//! same numbers, and no result depends on timing. The policy sums gradients, as it knows where they are stored.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Contribution of a process to an exchange, or the reason why it failed.
pub type Given = Result<Vec<u8>, String>;

/// A connection to the other processes.
pub trait Ranks<E> {
    /// Rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Gathers the contributions of all processes, in the order of their ranks. All processes must call this the same
    /// number of times.
    ///
    /// # Errors
    ///
    /// An error of the connection.
    fn gather(&self, own: Given) -> Result<Vec<Given>, E>;
}

/// Error of an exchange between processes.
#[derive(Debug, thiserror::Error)]
pub enum RanksError<E> {
    /// A failure of the connection.
    #[error(transparent)]
    Link(E),
    /// A failure of another process.
    #[error("process {rank}: {problem}")]
    Other {
        /// Rank of the failed process.
        rank: usize,
        /// Description of the failed process's error.
        problem: String,
    },
}

/// Gathers a value from each process, in the order of ranks, or returns an error if a process has none. With only one
/// process there is no exchange.
///
/// # Errors
///
/// The process's own error first; otherwise [`RanksError`].
pub fn agree<T, E, F>(ranks: Option<&dyn Ranks<E>>, own: Result<T, F>) -> Result<Vec<T>, F>
where
    T: Serialize + DeserializeOwned,
    F: From<RanksError<E>> + std::fmt::Display,
{
    let Some(ranks) = ranks else { return own.map(|own| vec![own]) };
    let given = match &own {
        Ok(own) => postcard::to_allocvec(own).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let all = ranks.gather(given);
    own?;
    let read = |(rank, given): (usize, Given)| {
        let other = |problem| RanksError::Other { rank, problem };
        let bytes = given.map_err(other)?;
        postcard::from_bytes(&bytes).map_err(|error| other(format!("it does not run the same program: {error}")))
    };
    let all = all.map_err(RanksError::Link)?;
    Ok(all.into_iter().enumerate().map(read).collect::<Result<_, RanksError<E>>>()?)
}
