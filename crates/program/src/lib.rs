//! Code that the programs of this workspace share.
//!
//! | to find | look in |
//! |---|---|
//! | means and shares with their intervals | [`statistics`] |
//! | files and folders that appear once they are complete (feature `files`) | `output` |
//! | files that grow by whole lines (feature `files`) | `journal` |
//! | progress of a run (feature `files`) | `progress` |
//! | printing of errors, and exit codes (feature `files`) | `outcome` |
//! | drawing of figures (feature `figures`) | `figure` |
//! | colour, dash and marker of a method in figures (feature `figures`) | `look` |
//! | a terminal's width, and styled text (feature `manual`) | `terminal` |
//! | help of a command line (feature `manual`) | `help` |
//! | methods explained in a terminal (feature `manual`) | `manual` |

#[cfg(feature = "figures")]
pub mod figure;
#[cfg(feature = "manual")]
pub mod help;
#[cfg(feature = "files")]
pub mod journal;
#[cfg(feature = "figures")]
pub mod look;
#[cfg(feature = "manual")]
pub mod manual;
#[cfg(feature = "manual")]
mod markdown;
#[cfg(feature = "files")]
pub mod outcome;
#[cfg(feature = "files")]
pub mod output;
#[cfg(feature = "files")]
pub mod progress;
pub mod statistics;
#[cfg(feature = "manual")]
pub mod terminal;

#[cfg(feature = "files")]
pub use journal::Journal;
#[cfg(feature = "files")]
pub use outcome::exit_code;
#[cfg(feature = "files")]
pub use output::{FolderLock, NewFolder, OutputError, OutputFile, OutputFolder};
#[cfg(feature = "files")]
pub use progress::Progress;
