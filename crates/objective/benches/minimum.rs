//! The minimum time of one evaluation, loss and cotangents, on one thread: the measure that other load on the machine
//! disturbs least.
//!
//! `cargo bench -p objective --bench minimum -- METHOD...` prints a line a method and number of tokens: both, the
//! tokens that it really has, and microseconds. `experiments/speed/objective.py` reads them.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use objective::Parameters;

use crate::work::Work;

mod work;

/// Number of evaluations of 64k tokens; fewer for more tokens.
const REPETITIONS: usize = 1000;
const TOKENS: [usize; 2] = [1 << 16, 1 << 20];

fn main() {
    // Cargo adds `--bench`.
    for name in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        for tokens in TOKENS {
            let mut work = Work::new(objective::registry::find(&name).unwrap(), &Parameters::new(), tokens);
            let evaluate = || {
                let begin = Instant::now();
                black_box(work.evaluate());
                begin.elapsed()
            };
            let least = std::iter::repeat_with(evaluate).take(REPETITIONS * TOKENS[0] / tokens).min().unwrap();
            println!("{name} {tokens} {} {}", work.totals.tokens, least.as_secs_f64() * 1e6);
        }
    }
}
