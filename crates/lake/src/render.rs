//! Reports as text, figures and a page.

pub mod drawing;
#[cfg(feature = "full")]
pub mod figures;
pub mod fitted;
pub(crate) mod number;
#[cfg(feature = "full")]
pub mod page;
