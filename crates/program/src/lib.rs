//! What the programs of this workspace share.
//!
//! | to find | look in |
//! |---|---|
//! | files and folders that appear whole or not at all | [`output`] |
//! | files that grow by whole lines | [`journal`] |
//! | how figures are drawn (feature `figures`) | `figure` |
//! | colour, dash and marker of a method in figures | `look` |
//! | how far a run is | [`progress`] |
//! | how an error is told, and with which exit code | [`outcome`] |

#[cfg(feature = "figures")]
pub mod figure;
pub mod journal;
#[cfg(feature = "figures")]
pub mod look;
pub mod outcome;
pub mod output;
pub mod progress;

pub use journal::Journal;
pub use outcome::exit_code;
pub use output::{FolderLock, NewFolder, OutputError, OutputFile, OutputFolder};
pub use progress::Progress;
