//! What the programs of this workspace share.
//!
//! | to find | look in |
//! |---|---|
//! | files and folders that appear whole or not at all | [`output`] |
//! | how figures are drawn (feature `figures`) | `figure` |
//! | how far a run is | [`progress`] |
//! | how an error is told, and with which exit code | [`outcome`] |

#[cfg(feature = "figures")]
pub mod figure;
pub mod outcome;
pub mod output;
pub mod progress;

pub use outcome::exit_code;
pub use output::{FolderLock, NewFolder, OutputError, OutputFolder};
pub use progress::Progress;
