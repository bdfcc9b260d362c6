//! Ctrl-C and SIGTERM: the first asks the run to stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What asked the run to stop, if anything did.
pub(crate) struct Asked(Arc<AtomicUsize>);

impl Asked {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// Where the system does not let it.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (signal, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for number in [SIGINT, SIGTERM] {
            // In this order: what the second one is told by is set by the first.
            flag::register_conditional_shutdown(number, code(number).into(), Arc::clone(&again))?;
            flag::register(number, Arc::clone(&again))?;
            flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        Ok(Self(signal))
    }

    /// Whether there was one.
    pub(crate) fn stops(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// What a shell takes for a process that the signal ended. Where another process was asked, as if SIGTERM had been.
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
