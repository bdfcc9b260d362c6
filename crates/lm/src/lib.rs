//! Fine-tunes Hugging Face language models with the alignment objectives.
//!
//! | to find | look in |
//! |---|---|
//! | a model's shape | [`config`] |
//! | why something was refused | [`error`] |

pub mod config;
pub mod error;
