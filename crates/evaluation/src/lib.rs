//! Evaluation of language models: benchmark results side by side, and a judge's preferences between two models'
//! answers.
//!
//! - [`compare`]: a table and a figure of benchmark results of several methods, from files of lm-evaluation-harness.
//! - [`judge`]: win rates of one model against another, by the verdicts of a third model.
//! - [`outputs`]: files of a model's answers to instructions, which a judge compares.
//! - [`error`]: errors of comparisons and of judges.

pub mod compare;
pub mod error;
pub mod judge;
pub mod outputs;
