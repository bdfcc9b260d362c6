//! Code that the programs of this workspace share.
//!
//! | to find | look in |
//! |---|---|
//! | files and folders that appear once they are complete | [`output`] |
//! | files that grow by whole lines | [`journal`] |
//! | drawing of figures (feature `figures`) | `figure` |
//! | colour, dash and marker of a method in figures | `look` |
//! | progress of a run | [`progress`] |
//! | printing of errors, and exit codes | [`outcome`] |

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
