//! Value iteration that also uses the values one sweep before, V₋: V ← V₋ + ω (B V − V₋).
//!
//! Golub and Varga 1961, "Chebyshev semi-iterative methods, successive overrelaxation iterative methods, and second
//! order Richardson iterative methods": where the eigenvalues of γP lie in an ellipse with half-axes a along the real
//! and b along the imaginary axis, ω = 2 / (1 + √(1 − a² + b²)) shrinks changes by (a + b) / (1 + √(1 − a² + b²)) a
//! sweep. Here a = γ, and b is a share of it. With γ = 0.99 that is 0.976 rather than 0.99: less than half the sweeps,
//! each little longer than without.
//!
//! No eigenvalues are known. So every few sweeps the residual must have fallen as far as plain value iteration's is
//! sure to; where it has not, b grows, ω falls towards 1, and the method becomes plain value iteration. If the
//! residual of that does not fall at all, the rest is rounding.

use super::plane::{BLOCK, Plane, greater};
use super::value_iteration::sweep;

/// Initial ratio b / a of the half-axes of the ellipse of eigenvalues.
const IMAGINARY: f64 = 0.4;
/// Factor by which b grows if the residual has not fallen far enough.
const GROWTH: f64 = 1.25;
/// Minimum of ω; smaller values are replaced by 1.
const LEAST: f64 = 1.02;
/// Number of sweeps between two checks of the residual.
const WINDOW: usize = 32;
/// Ratio b / a at which there is no acceleration: the method is plain value iteration.
const NONE: f64 = 1.0;
/// Number of columns that are processed at a time.
const SEGMENT: usize = 4 * BLOCK;

/// Sweeps until the residual is below the tolerance, and returns the number of sweeps.
pub(super) fn solve(plane: &mut Plane) -> usize {
    let gamma = plane.rules.gamma;
    // One sweep less, so that rounding does not matter for a residual that falls by exactly γ per sweep.
    let fall = gamma.powi(WINDOW as i32 - 1);
    let mut share = IMAGINARY;
    let mut next = plane.worth.clone();
    // The residual that a window began with, and the sweeps of the window.
    let (mut sweeps, mut before, mut since) = (0, f64::INFINITY, 0);
    loop {
        let omega = relaxation(gamma, share);
        sweeps += 1;
        let residual = sweep(plane, &mut next, |plane, row, out| {
            let mut backed_up = [0.0; SEGMENT];
            let mut most = 0.0;
            for (number, out) in out.chunks_mut(SEGMENT).enumerate() {
                let (from, backed_up) = (number * SEGMENT, &mut backed_up[..out.len()]);
                plane.back_up(row, from, from + out.len(), backed_up);
                most = greater(plane.change(row, from, backed_up), most);
                for (out, &backed_up) in out.iter_mut().zip(&*backed_up) {
                    *out += omega * (backed_up - *out);
                }
            }
            most
        });
        // The residual is that of the values before this sweep, so these are kept.
        if plane.is_settled(residual) {
            std::mem::swap(&mut plane.worth, &mut next);
            return sweeps;
        }
        let grew = residual > before;
        if omega == 1.0 && since == WINDOW && residual >= before {
            return sweeps;
        }
        if omega > 1.0 && (grew || since == WINDOW && residual > fall * before) {
            // A growing residual belongs to a policy that moves in one direction, which the eigenvalues do not
            // describe.
            share = if grew { NONE } else { GROWTH * share };
            // The last sweep used the old ω, so the next one begins the new window.
            (before, since) = (f64::INFINITY, 0);
        } else {
            if since == 0 || since == WINDOW {
                (before, since) = (residual, 0);
            }
            since += 1;
        }
    }
}

/// Relaxation factor ω for b = share · γ; 1 if ω would be close to 1.
fn relaxation(gamma: f64, share: f64) -> f64 {
    let omega = 2.0 / (1.0 + (1.0 - gamma * gamma * (1.0 - share * share)).sqrt());
    if omega < LEAST { 1.0 } else { omega }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relaxation_is_golub_and_vargas_and_ends_at_none() {
        // 2 / (1 + sqrt(1 - 0.9801 * 0.84)) by hand.
        assert!((relaxation(0.99, 0.4) - 1.408_078).abs() < 1e-6, "{}", relaxation(0.99, 0.4));
        assert_eq!(relaxation(0.0, 0.4), 1.0);
        assert_eq!(relaxation(0.99, 1.0), 1.0);
        assert_eq!(relaxation(0.99, 3.0), 1.0);
    }
}
