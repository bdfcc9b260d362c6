//! Reports as text, figures and a page.

pub mod drawing;
#[cfg(feature = "program")]
pub mod figures;
pub mod fitted;
pub(crate) mod number;
#[cfg(feature = "program")]
pub mod page;
