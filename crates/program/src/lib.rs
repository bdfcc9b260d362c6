//! What the programs of this workspace share.
//!
//! | to find | look in |
//! |---|---|
//! | files and folders that appear whole or not at all | [`output`] |
//! | files that grow by whole lines | [`journal`] |
//! | how figures are drawn (feature `figures`) | `figure` |
//! | colour, dash and marker of a method in figures | `look` |
//! | how far a run is | [`progress`] |
//! | a terminal's width, and styled text (feature `manual`) | `terminal` |
//! | help of a command line (feature `manual`) | `help` |
//! | methods explained in a terminal (feature `manual`) | `manual` |
//! | how an error is told, and with which exit code | [`outcome`] |

#[cfg(feature = "figures")]
pub mod figure;
#[cfg(feature = "manual")]
pub mod help;
pub mod journal;
#[cfg(feature = "figures")]
pub mod look;
#[cfg(feature = "manual")]
pub mod manual;
#[cfg(feature = "manual")]
mod markdown;
pub mod outcome;
pub mod output;
pub mod progress;
#[cfg(feature = "manual")]
pub mod terminal;

pub use journal::Journal;
pub use outcome::exit_code;
pub use output::{FolderLock, NewFolder, OutputError, OutputFile, OutputFolder};
pub use progress::Progress;
