//! Tests of text against transformers and Jinja2.

// A failed check is a panic, in what the tests share as in themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod expressions;
mod oracle;
mod templates;
mod tokens;
