//! Errors of parameters.

/// Reason why a set of parameters is rejected.
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
    /// An unknown parameter.
    #[error("{owner}.{name}: unknown parameter; allowed: {allowed}")]
    Unknown {
        /// Name of the method or optimizer.
        owner: &'static str,
        /// Given name.
        name: String,
        /// Names of all parameters.
        allowed: String,
    },
    /// A value outside of its range or of the wrong kind.
    #[error("{owner}.{name}: expected {allowed}, got {given}")]
    Invalid {
        /// Name of the method or optimizer.
        owner: &'static str,
        /// Name of the parameter.
        name: &'static str,
        /// Description of the allowed values.
        allowed: String,
        /// Given value.
        given: String,
    },
    /// A parameter without effect under the other values.
    #[error("{owner}.{name}: not used where {because}, so it must not be set (got {given})")]
    Unused {
        /// Name of the method or optimizer.
        owner: &'static str,
        /// Name of the parameter.
        name: &'static str,
        /// Setting under which the parameter has no effect.
        because: String,
        /// Given value.
        given: String,
    },
}
