//! Names that say how to make what they name: `generated:8x8,holes=0.2,seed=7`, `drawn:falling,moves=8`.

use crate::error::LakeError;

/// A name, taken apart.
pub(crate) struct Spelled<'a> {
    /// What its errors call it.
    subject: &'static str,
    /// What stands before the first comma.
    pub(crate) head: &'a str,
    /// The others, each a field and its value.
    pub(crate) fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Spelled<'a> {
    pub(crate) fn new(subject: &'static str, prefix: &str, name: &'a str) -> Self {
        let mut parts = name.strip_prefix(prefix).unwrap_or(name).split(',').map(str::trim);
        let head = parts.next().unwrap_or_default();
        Self { subject, head, fields: parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect() }
    }

    /// That a part is not what is allowed.
    pub(crate) fn fail(&self, part: &str, allowed: &str, given: &str) -> LakeError {
        LakeError::Field {
            field: format!("{}.{part}", self.subject),
            allowed: allowed.to_owned(),
            given: format!("\"{given}\""),
        }
    }

    /// A seed.
    pub(crate) fn seed(&self, value: &str) -> Result<u64, LakeError> {
        value.parse().map_err(|_| self.fail("seed", "a whole number, 0 <= seed < 2^64", value))
    }
}
