//! The accuracy of each cell's value, relative to the values around it.
//!
//! # Formula
//!
//! Let ρ(s,a) bound the rounding of Q(s,a), and let e(s) bound |V(s) − V*(s)|. Then
//!
//! > (F e)(s) = max{ minₐ [V(s) − Q(s,a) + ρ(s,a) + γ Σ P(s'|s,a) e(s')], maxₐ [Q(s,a) − V(s) + ρ(s,a) + γ Σ P(s'|s,a) e(s')] }
//!
//! bounds |V(s) − V*(s)| too: V*(s) is at least the value of any action, and at most that of the best. An action that
//! is clearly worse than the best contributes nothing, whatever it leads to. F brings any two e closer by γ, so that
//! its repeated application shrinks a first bound to the residuals and the rounding along a cell's own paths, which are
//! as small as its values.
//!
//! First bounds are c = max F 0 / (1 − γ) in every cell and, where V ≥ 0 and γ Σ P(s'|s,a) V(s') ≤ V(s) for every
//! action,
//!
//! > e(s) = δ V(s) (V̂ / V(s))ˣ / (1 − γˣ), 0 < x ≤ 1, with F 0 ≤ δ V and V̂ = max V.
//!
//! This holds because P V¹⁻ˣ ≤ (P V)¹⁻ˣ by Jensen's inequality, so γ P V¹⁻ˣ ≤ γˣ V¹⁻ˣ, and F e ≤ δ V + γˣ e ≤ e. With x
//! = 1 / ln(V̂ / V(s)) that is about e δ V(s) times the number of moves by which V(s) is discounted. V stands here for
//! V + 10⁻³⁰⁰, beside which underflow is negligible.
//!
//! A cell that can continue for ever without a reward and has no action with a positive value has exactly the value 0.

use crate::world::map::ACTIONS;

use super::ACCURACY;
use super::plane::{Plane, greater};

/// Rounding of a backup, in units of the sum of magnitudes in it; see [`Plane::certify`].
const UNITS: f64 = 8.0 * f64::EPSILON;
/// Maximum loss of a backup to underflow.
const UNDERFLOW: f64 = 1e-321;
/// Number that is added to values so that underflow is negligible.
const FLOOR: f64 = 1e-300;
/// Factor that covers the rounding of sums of bounds.
const SLACK: f64 = 1.0 + 32.0 * f64::EPSILON;
/// Two actions tie if the bound of their difference is at most this share of the relevant values.
const TIE: f64 = 1e-8;
/// Two actions tie if the bound is also at most this share times 1 − γ, so that a tie never hides the cost of waiting.
const WAIT: f64 = 1e-5;
/// Maximum number of cell visits of each search that shrinks bounds: until ties are certain, and until the accuracy is
/// reached.
const LONGEST: usize = 100_000_000;
const LONGER: usize = 500_000;
/// Share of 1 − γ below which the relative decrease of the bounds in a sweep counts as stalled.
const STALLED: f64 = 0.1;

/// Error bounds and candidate actions of every cell.
pub(super) struct Certificate<'a> {
    plane: &'a Plane,
    value: &'a [f64],
    action_value: &'a [[f64; ACTIONS]],
    open: Vec<bool>,
    /// Magnitude of the worth of arriving in each cell.
    terms: Vec<f64>,
    /// Bound of each open cell's error, times γ.
    reach: Vec<f64>,
}

/// The actions of a cell that may be the best.
pub(super) struct Choice {
    /// Actions that are not certainly worse.
    pub(super) tied: [bool; ACTIONS],
    /// Difference from the best value, and its error bound, of the tied action with the greatest such bound.
    pub(super) gap: f64,
    pub(super) bound: f64,
    /// Magnitude of the terms whose sum is the best action's value.
    pub(super) terms: f64,
    /// Whether the bound is small enough for a tie to be certain.
    pub(super) certain: bool,
}

impl<'a> Certificate<'a> {
    /// Computes error bounds of V, whose U the plane contains, and of Q.
    pub(super) fn new(plane: &'a Plane, value: &'a [f64], action_value: &'a [[f64; ACTIONS]]) -> Self {
        let mut certificate = Self::with_reach(plane, value, action_value, vec![0.0; value.len()]);
        let tight = certificate.begin();
        certificate.still();
        // Bounds from a cell's own value are close to the minimum, so only others are worth shrinking.
        if !tight || plane.accuracy() < f64::EPSILON {
            certificate.shrink(LONGEST, |certificate, cell| !certificate.choice(cell).certain);
        }
        if !tight || plane.accuracy() <= ACCURACY {
            certificate.shrink(LONGER, |certificate, cell| certificate.excess(cell) > certificate.plane.accuracy());
        }
        certificate
    }

    /// Makes a certificate with known bounds.
    pub(super) fn known(
        plane: &'a Plane,
        value: &'a [f64],
        action_value: &'a [[f64; ACTIONS]],
        bounds: &[f64],
    ) -> Self {
        let reach = bounds.iter().map(|&bound| if bound > 0.0 { discounted(plane, bound) } else { 0.0 }).collect();
        Self::with_reach(plane, value, action_value, reach)
    }

    fn with_reach(plane: &'a Plane, value: &'a [f64], action_value: &'a [[f64; ACTIONS]], reach: Vec<f64>) -> Self {
        let open = plane.open();
        let of = |cell: usize| match open[cell] {
            true if value[cell] != 0.0 => plane.rules.terms(value[cell]).max(UNDERFLOW),
            true => plane.rules.terms(0.0),
            false => plane.worth[plane.index(cell / plane.width, cell % plane.width)].abs(),
        };
        let terms = (0..value.len()).map(of).collect();
        Self { plane, value, action_value, open, terms, reach }
    }

    /// Bound of each cell's error.
    pub(super) fn into_bounds(self) -> Vec<f64> {
        (0..self.value.len()).map(|cell| self.bound(cell)).collect()
    }

    /// Bound of a cell's error: the operator F applied to the bounds around the cell.
    fn bound(&self, cell: usize) -> f64 {
        if self.open[cell] { self.errors(cell, &self.errors_of(cell)) } else { 0.0 }
    }

    /// Error bound of a cell, relative to its value if that is below 1.
    fn excess(&self, cell: usize) -> f64 {
        let bound = self.bound(cell);
        if bound == 0.0 { 0.0 } else { bound / self.value[cell].abs().min(1.0) }
    }

    /// Actions of a cell that may be the best.
    pub(super) fn choice(&self, cell: usize) -> Choice {
        let (q, errors) = (self.action_value[cell], self.errors_of(cell));
        let best = (1..ACTIONS).fold(0, |best, action| if q[action] > q[best] { action } else { best });
        let mut choice = Choice { tied: [false; ACTIONS], gap: 0.0, bound: 0.0, terms: 0.0, certain: true };
        choice.tied[best] = true;
        choice.terms = self.plane.rules.action_values(self.around(cell, |way| self.terms[way]))[best];
        let limit = tie(self.plane.rules.gamma) * choice.terms;
        for action in (0..ACTIONS).filter(|&action| action != best) {
            let (gap, bound) = (q[best] - q[action], self.errors_of_difference(cell, best, action, &errors));
            if gap <= bound {
                choice.tied[action] = true;
                if bound > limit {
                    choice.certain = false;
                }
                if bound >= choice.bound {
                    (choice.gap, choice.bound) = (gap, bound);
                }
            }
        }
        choice
    }

    #[inline(always)]
    fn around(&self, cell: usize, number: impl Fn(usize) -> f64) -> [f64; ACTIONS] {
        self.plane.ways(cell).map(number)
    }

    /// Error bound of each action's value in a cell.
    #[inline(always)]
    fn errors_of(&self, cell: usize) -> [f64; ACTIONS] {
        let rules = &self.plane.rules;
        let noise = self.noise_of(cell);
        let spread = rules.action_values(self.around(cell, |way| self.reach[way]));
        std::array::from_fn(|action| (noise[action] + spread[action]) * SLACK)
    }

    /// Error bound of the difference of two actions' values: errors of common outcomes cancel.
    fn errors_of_difference(&self, cell: usize, one: usize, other: usize, errors: &[f64; ACTIONS]) -> f64 {
        let (ways, noise) = (self.plane.ways(cell), self.noise_of(cell));
        let (intended, aside) = self.plane.rules.probabilities();
        let probability = |action: usize, way: usize| match (way + ACTIONS - action) % ACTIONS {
            0 => intended,
            2 => 0.0,
            _ => aside,
        };
        let (mut spread, mut back) = (0.0, 0.0);
        for (way, &next) in ways.iter().enumerate() {
            let more = probability(one, way) - probability(other, way);
            // All walls lead back to the cell itself.
            if next == cell { back += more } else { spread += more.abs() * self.reach[next] }
        }
        spread += back.abs() * self.reach[cell];
        // The last term covers the rounding of the probabilities' differences.
        (spread + noise[one] + noise[other] + UNITS * (errors[one] + errors[other])) * SLACK
    }

    /// Rounding and underflow of each action's value in a cell.
    #[inline(always)]
    fn noise_of(&self, cell: usize) -> [f64; ACTIONS] {
        let rules = &self.plane.rules;
        let terms = self.around(cell, |way| self.terms[way]);
        let some = rules.action_values(terms.map(|terms| f64::from(terms > 0.0)));
        let terms = rules.action_values(terms);
        std::array::from_fn(|action| UNITS * terms[action] + if some[action] > 0.0 { UNDERFLOW } else { 0.0 })
    }

    /// Value of the operator F in a cell, given the error bounds of the cell's actions.
    #[inline(always)]
    fn errors(&self, cell: usize, errors: &[f64; ACTIONS]) -> f64 {
        let (value, q) = (self.value[cell], self.action_value[cell]);
        let (mut below, mut above) = (f64::INFINITY, 0.0);
        for action in 0..ACTIONS {
            let lost = value - q[action] + errors[action];
            below = if lost < below { lost } else { below };
            above = greater(q[action] - value + errors[action], above);
        }
        greater(below, above) * SLACK
    }

    fn open_cells(&self) -> impl Iterator<Item = usize> + use<'_, 'a> {
        (0..self.value.len()).filter(|&cell| self.open[cell])
    }

    /// Computes first bounds, and returns whether a bound relative to a cell's own value exists.
    fn begin(&mut self) -> bool {
        let gamma = self.plane.rules.gamma;
        let own: Vec<_> =
            (0..self.value.len()).map(|cell| if self.open[cell] { self.bound(cell) } else { 0.0 }).collect();
        let everywhere = own.iter().copied().fold(0.0, greater) / (1.0 - gamma) * SLACK;
        let relative = self.relative(&own);
        for cell in self.open_cells().collect::<Vec<_>>() {
            self.reach[cell] = discounted(self.plane, everywhere.min(relative(self.value[cell])));
        }
        relative(1.0).is_finite()
    }

    /// Returns the first bound as a function of a cell's value; it is infinite if no such bound exists. `own` is F 0.
    fn relative(&self, own: &[f64]) -> impl Fn(f64) -> f64 + use<> {
        let rules = self.plane.rules;
        let (mut delta, mut growth, mut most) = (0.0, 0.0, 0.0);
        for cell in self.open_cells() {
            let value = self.value[cell] + FLOOR;
            let worth = |way: usize| if self.open[way] { rules.gamma * (self.value[way] + FLOOR) } else { 0.0 };
            let next = rules.action_values(self.around(cell, worth)).into_iter().fold(0.0, greater);
            delta = greater(own[cell] / value, delta);
            growth = if value > 0.0 { greater(next / value - 1.0, growth) } else { f64::INFINITY };
            most = greater(value, most);
        }
        move |value: f64| {
            let ratio = most / (value + FLOOR);
            let x = 1.0 / ratio.ln().max(1.0);
            let left = 1.0 - rules.gamma.powf(x) * (1.0 + growth + UNITS);
            match left > 0.0 {
                true => delta * (value + FLOOR) * ratio.powf(x) / left * (1.0 + 1e-9),
                false => f64::INFINITY,
            }
        }
    }

    /// Finds the cells whose value is 0 exactly.
    fn still(&mut self) {
        let rules = self.plane.rules;
        if rules.frozen != 0.0 {
            return;
        }
        let mut still: Vec<_> = (0..self.value.len())
            .map(|cell| if self.open[cell] { self.value[cell] == 0.0 } else { self.terms[cell] == 0.0 })
            .collect();
        let mut suspects: Vec<_> = self.open_cells().filter(|&cell| still[cell]).collect();
        while let Some(cell) = suspects.pop() {
            let away = rules.action_values(self.around(cell, |way| f64::from(!still[way])));
            let (q, errors) = (self.action_value[cell], self.errors_of(cell));
            let may_earn = |action: usize| away[action] > 0.0 && q[action] + errors[action] >= 0.0;
            if away.iter().all(|&away| away > 0.0) || (0..ACTIONS).any(may_earn) {
                still[cell] = false;
                suspects.extend(self.plane.ways(cell).into_iter().filter(|&way| self.open[way] && still[way]));
            }
        }
        for (cell, still) in still.into_iter().enumerate() {
            if still {
                self.reach[cell] = 0.0;
            }
        }
    }

    /// Applies the operator F until no cell needs a smaller bound, or the bounds stop shrinking.
    fn shrink(&mut self, most: usize, wants: impl Fn(&Self, usize) -> bool) {
        let gamma = self.plane.rules.gamma;
        let cells: Vec<_> = self.open_cells().collect();
        let mut wanting: Vec<_> = cells.iter().copied().filter(|&cell| wants(self, cell)).collect();
        for sweep in 0..most / cells.len().max(1) {
            if wanting.is_empty() {
                return;
            }
            let before: Vec<_> = wanting.iter().map(|&cell| self.reach_of_actions(cell)).collect();
            for turn in 0..cells.len() {
                let cell = cells[if sweep % 2 == 0 { cells.len() - 1 - turn } else { turn }];
                if self.reach[cell] > 0.0 {
                    self.reach[cell] = self.reach[cell].min(discounted(self.plane, self.bound(cell)));
                }
            }
            let gains = |(&cell, before): (&usize, f64)| {
                before - self.reach_of_actions(cell) > STALLED * (1.0 - gamma) * before
            };
            if !wanting.iter().zip(before).any(gains) {
                return;
            }
            wanting.retain(|&cell| wants(self, cell));
        }
    }

    /// Sum of the neighbouring cells' bounds, times γ, on which a cell's bound depends.
    fn reach_of_actions(&self, cell: usize) -> f64 {
        self.around(cell, |way| self.reach[way]).iter().sum()
    }
}

/// Maximum share of the relevant values that the bound of a difference may have in a tie.
pub(super) fn tie(gamma: f64) -> f64 {
    TIE.min(WAIT * (1.0 - gamma))
}

/// A bound times γ, rounded so that it does not become 0.
fn discounted(plane: &Plane, bound: f64) -> f64 {
    (plane.rules.gamma * bound * SLACK).max(UNDERFLOW)
}
