//! The value function's loss.
//!
//! # Formula
//!
//! With V the value, R its return: max((V − R)², (V̂ − R)²)/2, V̂ = V_behaviour + clip(V − V_behaviour, ±v) with
//! `value_clip` = v, otherwise V. The derivative by V is V − R where the maximum moves with V, otherwise 0.
//!
//! # Source
//!
//! J. Schulman et al., arXiv 1707.06347, equation 9; the clip from the authors' code.

/// Clipped squared error max((V − R)², (V̂ − R)²)/2, and its derivative by V.
pub(super) fn value_loss(value: f64, returned: f64, behaviour: Option<(f64, f64)>) -> (f64, f64) {
    let error = value - returned;
    if let Some((behaviour, clip)) = behaviour {
        let moved = value - behaviour;
        let held = behaviour + moved.clamp(-clip, clip);
        // The clip's own bounds decide: within them V̂ is V, whatever the rounding of V_behaviour + (V − V_behaviour).
        // Beyond them V̂ lies between V_behaviour and V, and is further from R if R lies on V's side of the middle.
        let further = if moved > clip { error + (held - returned) < 0.0 } else { error + (held - returned) > 0.0 };
        if moved.abs() > clip && further {
            return ((held - returned).powi(2) / 2.0, 0.0);
        }
    }
    (error * error / 2.0, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_the_clip_the_value_has_its_gradient_whatever_rounding_does() {
        // V − V_behaviour = 0.15 is within 0.2; V_behaviour + 0.15 rounds to more than V.
        assert_eq!(value_loss(0.05, 0.0, Some((-0.1, 0.2))), (0.05 * 0.05 / 2.0, 0.05));
        for step in 0..4000 {
            let value = f64::from(step) * 1e-4 - 0.2;
            for behaviour in [-0.1, 0.0, 0.3, 1e-3, 1.0 / 3.0] {
                for returned in [-1.0, 0.0, 0.1, 1.0] {
                    if (value - behaviour).abs() <= 0.2 {
                        let error = value - returned;
                        let expected = (error * error / 2.0, error);
                        assert_eq!(value_loss(value, returned, Some((behaviour, 0.2))), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn outside_the_clip_the_greater_error_counts_and_only_the_values_own_has_a_gradient() {
        // V = 1, V̂ = 0.2: a return beyond V is further from V̂, one below V̂ further from V.
        assert_eq!(value_loss(1.0, 2.0, Some((0.0, 0.2))), (1.8 * 1.8 / 2.0, 0.0));
        assert_eq!(value_loss(1.0, -1.0, Some((0.0, 0.2))), (2.0, 2.0));
        assert_eq!(value_loss(-1.0, -2.0, Some((0.0, 0.2))), (1.8 * 1.8 / 2.0, 0.0));
        assert_eq!(value_loss(-1.0, 1.0, Some((0.0, 0.2))), (2.0, -2.0));
        // Just beyond the clip, with a return on the other side: V̂ may round to V or past it, and the gradient is that
        // of V.
        for behaviour in [-0.1, 0.1, 0.3, 0.7] {
            let value = f64::next_up(behaviour + 0.2);
            assert_eq!(value_loss(value, -1.0, Some((behaviour, 0.2))).1, value + 1.0);
        }
    }
}
