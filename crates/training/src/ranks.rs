//! Processes that take a step together, each with a copy of the policy and micro-batches of its own.
//!
//! What they tell each other are counts, losses and columns, in the order of their ranks: each process then computes the same from
//! the same, and no result depends on which of them was faster. Gradients are summed by the policy, which knows where they are.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a process gives in an exchange, or why it cannot go on.
pub type Given = Result<Vec<u8>, String>;

/// How a process reaches the others.
pub trait Ranks<E> {
    /// The process's number, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn size(&self) -> usize;

    /// What each process gives, in the order of their ranks. All of them call this, and as often.
    ///
    /// # Errors
    ///
    /// The link's own.
    fn gather(&self, own: Given) -> Result<Vec<Given>, E>;
}

/// Why a process does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RanksError<E> {
    /// The others cannot be reached.
    #[error(transparent)]
    Link(E),
    /// One of the others cannot go on.
    #[error("process {rank}: {problem}")]
    Other {
        /// Its number.
        rank: usize,
        /// Why not.
        problem: String,
    },
}

/// What each process has, in the order of their ranks, where all of them have something. A process that is alone tells nobody.
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
