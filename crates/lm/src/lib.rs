//! Fine-tunes Hugging Face language models with the alignment objectives.
//!
//! | to find | look in |
//! |---|---|
//! | a model's shape | [`config`] |
//! | text to tokens | [`tokens`] |
//! | conversations to text | [`chat`], [`python_json`] |
//! | data as JSON lines or Parquet | [`data`] |
//! | tokens of a prompt and its response | [`example`] |
//! | the order of several data sets | [`mixture`] |
//! | why something was refused | [`error`] |

pub mod chat;
pub mod config;
pub mod data;
pub mod error;
pub mod example;
pub mod mixture;
pub mod python_json;
pub mod tokens;
