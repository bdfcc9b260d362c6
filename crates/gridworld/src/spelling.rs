//! Names with parameters: `generated:8x8,holes=0.2,seed=7`, `drawn:falling,moves=8`.

use recipe::Refusal;

/// A name split into its parts.
pub struct Spelled<'a> {
    /// Kind of thing that is named, for error messages.
    subject: &'static str,
    /// Text before the first comma.
    pub head: &'a str,
    /// Further fields, each with its value.
    pub fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Spelled<'a> {
    /// Parses a name with parameters.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] for a field that is given twice.
    pub fn new(subject: &'static str, prefix: &str, name: &'a str) -> Result<Self, Refusal> {
        let mut parts = name.strip_prefix(prefix).unwrap_or(name).split(',').map(str::trim);
        let head = parts.next().unwrap_or_default();
        let mut spelled = Self { subject, head, fields: Vec::new() };
        for (field, value) in parts.map(|part| part.split_once('=').unwrap_or((part, ""))) {
            if let Some((_, earlier)) = spelled.fields.iter().find(|(earlier, _)| *earlier == field) {
                return Err(spelled.fail(field, "one value", &format!("{earlier}\" and \"{value}")));
            }
            spelled.fields.push((field, value));
        }
        Ok(spelled)
    }

    /// The error of a part whose text is not allowed.
    pub fn fail(&self, part: &str, allowed: &str, given: &str) -> Refusal {
        Refusal::new(format!("{}.{part}", self.subject), allowed, format!("\"{given}\""))
    }

    /// Parses a seed.
    pub fn seed(&self, value: &str) -> Result<u64, Refusal> {
        value.parse().map_err(|_| self.fail("seed", "a whole number, 0 <= seed < 2^64", value))
    }
}
