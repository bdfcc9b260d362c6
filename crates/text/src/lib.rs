//! Text of language models: from files of conversations to the tokens that a model is trained on.
//!
//! - [`tokens`]: conversion of text to tokens and back, by a model's `tokenizer.json`.
//! - [`chat`]: rendering of conversations as text, by a model's chat template.
//! - [`python_json`]: formatting of JSON as Python's `json.dumps` formats it, which chat templates use.
//! - [`data`]: reading of training records, prompts and instructions from JSON lines, JSON lists and Parquet.
//! - [`example`]: the tokens of a prompt and of its response, with truncation.
//! - [`mixture`]: the order in which the examples of several data sets are read.
//! - [`random`]: random number generators that are determined by a seed and a place.
//! - [`json`]: strict reading of a model's JSON files.
//! - [`resumption`]: the settings of an interrupted command, which the resumed command must repeat.
//! - [`error`]: errors about tokenizers, chat templates and data.

pub mod chat;
pub mod data;
pub mod error;
pub mod example;
pub mod json;
pub mod mixture;
pub mod python_json;
pub mod random;
pub mod resumption;
pub mod tokens;
