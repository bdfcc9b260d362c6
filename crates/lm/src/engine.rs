//! Generation of responses, many at a time.
//!
//! - [`generate`]: responses to a list of prompts.
//! - [`schedule`]: continuous batching: sequences begin and end while others are generated.
//! - `pool`: the cache of keys and values, with one slot for each token.
//! - `prefixes`: the tree of known prefixes, whose keys and values sequences share.
//! - [`sampling`]: sampling of one token from a model's logits.
//! - [`answers`]: the output file of `lm generate`, which an interrupted command resumes.

pub mod answers;
pub mod generate;
mod pool;
mod prefixes;
pub mod sampling;
pub mod schedule;
