//! Ctrl-C and SIGTERM: the first signal requests a clean stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Signal that requested the stop: its number, or 0 before any.
pub(crate) struct StopSignal(Arc<AtomicUsize>);

impl StopSignal {
    /// Installs the signal handlers.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (signal, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for number in [SIGINT, SIGTERM] {
            // The order of registration matters: the second signal's handler reads the flag that the first one's sets.
            flag::register_conditional_shutdown(number, code(number).into(), Arc::clone(&again))?;
            flag::register(number, Arc::clone(&again))?;
            flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        Ok(Self(signal))
    }

    /// Whether a stop was requested.
    pub(crate) fn stops(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Exit code that shells use for a process that this signal ended. If another process received the signal, the code
    /// of SIGTERM.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.0.load(Ordering::Relaxed) as i32 {
            0 => code(SIGTERM),
            signal => code(signal),
        }
    }
}

fn code(signal: i32) -> u8 {
    128 + signal as u8
}
