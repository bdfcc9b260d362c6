//! The recipe language of both programs.
//!
//! A recipe is a TOML table. Its fields are declared once, as a struct that derives `JsonSchema`: the doc comment of a
//! field is its help, and its attributes give its range and its default. The schema of the struct is the declaration;
//! everything else here is read from it.
//!
//! | task | module |
//! |---|---|
//! | reading a declaration: fields, kinds, ranges, defaults | [`declaration`], `kind` |
//! | layers: files, defaults, and their deserialization | [`layers`] |
//! | `--set KEY=VALUE` | [`assignment`] |
//! | methods of a command line: `dpo:beta=0.05,ift` | [`method`] |
//! | the fields in which two recipes differ | [`difference`] |
//! | the defaults as a commented TOML file | [`document`] |
//! | schemas of names and optimizers, for attributes of fields | [`schema`] |
//! | options of a command line (feature `options`) | `options` |
//! | errors and suggestions | [`refusal`] |
//!
//! # Examples
//!
//! ```
//! use recipe::{Declaration, assign};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Cake {
//!     /// Number of eggs.
//!     #[schemars(range(min = 1, max = 12), extend("default" = 3))]
//!     eggs: u64,
//! }
//!
//! let declaration = Declaration::of::<Cake>();
//! let mut table = declaration.defaults();
//! assign(&mut table, &declaration, &[], "eggs=4")?;
//! let cake: Cake = recipe::layers::read(table)?;
//! assert_eq!(cake.eggs, 4);
//!
//! let refused = assign(&mut declaration.defaults(), &declaration, &[], "egg=4").unwrap_err();
//! assert_eq!(refused.to_string(), "egg: expected a field: one of eggs, got \"egg\"; did you mean eggs?");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod assignment;
pub mod declaration;
pub mod difference;
pub mod document;
mod kind;
pub mod layers;
pub mod method;
#[cfg(feature = "options")]
pub mod options;
pub mod refusal;
pub mod schema;

pub use self::assignment::{MethodPlace, assign};
pub use self::declaration::{Declaration, Field};
pub use self::kind::Kind;
pub use self::refusal::Refusal;
