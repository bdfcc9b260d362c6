//! Progress of a run.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::printable;

/// A progress bar on a terminal, and elsewhere a line every few seconds.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    unit: &'static str,
    line: Mutex<Instant>,
}

impl Progress {
    /// Interval between two lines.
    const PAUSE: Duration = Duration::from_secs(10);

    /// Progress over items with this name, before the first one is done.
    pub fn new(unit: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, unit, line: Mutex::new(Instant::now()) }
    }

    /// Sets the total number, and the number that was done before.
    pub fn begin(&self, all: u64, done: u64) {
        let template = format!("{{bar:40}} {{pos}}/{{len}} {}, {{msg}}{{eta}} left", self.unit);
        self.bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_length(all);
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// Counts one more as done.
    pub fn advance(&self) {
        self.bar.inc(1);
        if self.bar.is_hidden()
            && let Ok(mut last) = self.line.try_lock()
            && last.elapsed() >= Self::PAUSE
        {
            *last = Instant::now();
            let (done, all, message) = (self.bar.position(), self.bar.length().unwrap_or(0), self.bar.message());
            eprintln!("{done}/{all} {}, {message}{} left", self.unit, HumanDuration(self.bar.eta()));
        }
    }

    /// Sets the text beside the progress.
    pub fn message(&self, text: &str) {
        self.bar.set_message(format!("{text}, "));
    }

    /// Prints a separate line.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{}", printable(text)));
    }

    /// Ends the progress.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
