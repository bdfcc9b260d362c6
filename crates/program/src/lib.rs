//! What the programs of this workspace share.
//!
//! | to find | look in |
//! |---|---|
//! | files and folders that appear whole or not at all | [`output`] |
//! | how figures are drawn (feature `figures`) | `figure` |
//! | how a method looks in all of them | `look` |
//! | how far a run is | [`progress`] |
//! | how an error is told, and with which exit code | [`outcome`] |

#[cfg(feature = "figures")]
pub mod figure;
#[cfg(feature = "figures")]
pub mod look;
pub mod outcome;
pub mod output;
pub mod progress;

pub use outcome::exit_code;
pub use output::{FolderLock, NewFolder, OutputError, OutputFile, OutputFolder};
pub use progress::Progress;
