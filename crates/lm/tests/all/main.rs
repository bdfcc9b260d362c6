//! Tests of `lm`: against transformers and PyTorch, against itself, and as a program.

// A failed check is a panic, in tests as in the code that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod checkpoints;
mod command;
mod config;
mod cuda;
mod finetune;
mod folders;
mod generate;
mod generation;
mod hub;
mod invalid;
mod judge;
mod lake;
mod lora;
mod oracle;
mod outputs;
mod program;
mod properties;
mod ranks;
mod resume;
mod serve;
mod teacher;
mod weights;
