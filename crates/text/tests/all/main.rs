//! Tests of text against transformers and Jinja2.

// A failed check is a panic, in tests as in the code that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod expressions;
mod oracle;
mod templates;
mod tokens;
