//! Evaluates objectives over JSON lines, so that any language can check them.
//!
//! Each line of standard input asks for one evaluation and each line of standard output answers one:
//!
//! ```text
//! {"objective": {"name": "dpo", "beta": 0.1},
//!  "chosen":   {"log_prob": [[-1.2, -0.3], [-0.5]], "reference_log_prob": [[-1.0, -0.4], [-0.7]]},
//!  "rejected": {"log_prob": [[-2.0], [-0.9, -0.1]], "reference_log_prob": [[-1.5], [-1.0, -0.2]]}}
//!
//! {"loss": ..., "cotangents": {"chosen": {"log_prob": [[...], [...]]}, "rejected": {...}}, "metrics": {...}}
//! ```
//!
//! | data | sides | beside the columns |
//! |---|---|---|
//! | demonstrations | `chosen` | |
//! | preferences | `chosen`, `rejected` | |
//! | labelled | `labelled`, and `mismatched` where the objective asks for them | `desirable`, one a labelled response |
//! | groups | `groups` | `group` (numbered upwards) and `reward`, one a response, where advantages come from rewards |
//! | rollouts | `rollouts` | |
//!
//! A reward is a number, or a list of several numbers of which `null` abstains. `advantage` is a list a response, of a
//! number a token or of one number for all of them.
//!
//! `weight`, one number a response beside the columns (of pairs, on the chosen side), says how much each counts, where
//! the objective weighs.
//!
//! `totals` (`tokens`, `responses` of all sides, `pairs`, `chosen_tokens`, `groups`) are those of the whole optimizer
//! step; each left out is the line's own. `state` is what an earlier line answered as such. A bad line is answered by
//! `{"error": "..."}`: one with a key that stands twice, too, or with an array where an object is meant. A byte order
//! mark is skipped. The exit code is 0 once every line has its answer.

mod protocol;

use std::io::{BufRead, ErrorKind, Write};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line.context("standard input")?;
        match writeln!(output, "{}", protocol::answer(&line)?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            result => result.context("standard output")?,
        }
    }
    Ok(())
}
