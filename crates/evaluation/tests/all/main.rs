//! Tests of evaluation: judgements against known judges, alpaca_eval and statsmodels.

// A failed check is a panic, in tests as in the code that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fake;
mod judge;
mod oracle;
