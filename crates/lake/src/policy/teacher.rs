//! Teachers of distillation, as a recipe spells them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::LakeError;
use crate::solver::{Solution, boltzmann};
use crate::world::environment::Environment;
use crate::world::policy_table::TransitionMatrix;

/// Default temperature, low enough that the teacher prefers a shorter path although its value differs only by the
/// discount.
const TEMPERATURE: f64 = 0.01;

/// Accepted spellings of a teacher, for errors and help.
pub const SPELLING: &str = "optimal, optimal:TEMPERATURE with 0 < TEMPERATURE <= 1e6, or a file with a policy's table";

/// The policy that distillation learns from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Teacher {
    /// The Boltzmann policy over Q*.
    Optimal {
        /// Temperature, in units of return.
        temperature: f64,
    },
    /// A policy in a file, in the format of `lake measure`.
    File(PathBuf),
}

impl Teacher {
    /// The teacher's distribution in every cell.
    ///
    /// # Errors
    ///
    /// Those of [`policy_file::read`](crate::policy::policy_file::read).
    pub(crate) fn table(&self, environment: &Environment, solution: &Solution) -> Result<TransitionMatrix, LakeError> {
        match self {
            Self::Optimal { temperature } => Ok(boltzmann(environment, solution, *temperature)),
            #[cfg(feature = "program")]
            Self::File(path) => crate::policy::policy_file::read(environment.map(), path),
            #[cfg(not(feature = "program"))]
            Self::File(path) => Err(LakeError::Field {
                field: "recipe.teacher".to_owned(),
                allowed: "optimal:TEMPERATURE where no file can be read".to_owned(),
                given: path.display().to_string(),
            }),
        }
    }
}

impl fmt::Display for Teacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Optimal { temperature } => write!(f, "optimal:{temperature}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl From<Teacher> for String {
    fn from(teacher: Teacher) -> Self {
        teacher.to_string()
    }
}

impl TryFrom<String> for Teacher {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Teacher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let temperature = match text.split_once(':') {
            None if text == "optimal" => Some(TEMPERATURE),
            Some(("optimal", rest)) => {
                rest.parse().ok().filter(|temperature| *temperature > 0.0 && *temperature <= 1e6)
            }
            _ if !text.is_empty() => return Ok(Self::File(text.into())),
            _ => None,
        };
        let temperature = temperature.ok_or_else(|| format!("expected {SPELLING}, got \"{text}\""))?;
        Ok(Self::Optimal { temperature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teacher_is_spelled_and_read_back() {
        for text in ["optimal:0.25", "policies/ift-0.csv"] {
            assert_eq!(text.parse::<Teacher>().unwrap().to_string(), text);
        }
        assert_eq!("optimal".parse(), Ok(Teacher::Optimal { temperature: TEMPERATURE }));
        for text in ["", "optimal:0", "optimal:x"] {
            let error = text.parse::<Teacher>().unwrap_err();
            assert!(error.contains("optimal:TEMPERATURE") && error.contains(text), "{error}");
        }
    }
}
