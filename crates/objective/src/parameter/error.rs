//! Why parameters are refused.

/// Why a set of parameters was refused.
///
/// ```
/// let refusal = |method: &str, name: &str, value: f64| {
///     objective::registry::build(method, &[(name.to_owned(), value.into())].into()).unwrap_err().to_string()
/// };
/// assert_eq!(refusal("orpo", "beat", 0.5), "orpo.beat: unknown parameter; allowed: beta");
/// assert_eq!(refusal("orpo", "beta", 1e7), "orpo.beta: expected a number, 0 <= beta <= 1e6, got 1e7");
/// assert_eq!(
///     refusal("dpo", "divergence_alpha", 0.3),
///     "dpo.divergence_alpha: not used where divergence = reverse_kl, so it must not be set (got 0.3)"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// No such parameter.
    #[error("{owner}.{name}: unknown parameter; allowed: {allowed}")]
    Unknown {
        /// What the parameter was given for.
        owner: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        allowed: String,
    },
    /// A value outside of its range or of the wrong kind.
    #[error("{owner}.{name}: expected {allowed}, got {given}")]
    Invalid {
        /// What the parameter was given for.
        owner: &'static str,
        /// The parameter.
        name: &'static str,
        /// What is allowed.
        allowed: String,
        /// The value given.
        given: String,
    },
    /// A parameter that the other values leave without effect.
    #[error("{owner}.{name}: not used where {because}, so it must not be set (got {given})")]
    Unused {
        /// What the parameter was given for.
        owner: &'static str,
        /// The parameter.
        name: &'static str,
        /// The setting that makes it ineffective.
        because: String,
        /// The value given.
        given: String,
    },
}
