//! Order in which the examples of several data sets are read.
//!
//! Sets are interleaved by their weights wᵢ: after n examples, the number of examples of set i differs from n wᵢ / Σw
//! by less than 1, for every n. Each set has an order of its own, and every example of a set is read once before any is
//! read again.
//!
//! Example j of set i, counted from 0, has the release time j Σw / wᵢ and the deadline (j + 1) Σw / wᵢ. Of the examples
//! that are released, the one with the earliest deadline is taken; the first set wins ties. An order that meets all
//! release times and deadlines exists (Tijdeman 1980, the chairman assignment problem), and the earliest deadline first
//! finds one whenever one exists. Taking from the set that is furthest behind is not enough: with many sets, one of
//! them may fall behind by more than 1.
//!
//! The order is a function of sizes, weights and seed. A run that stopped after n examples resumes with the iterator at
//! position n.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use strum::VariantNames;

use crate::error::{TextError, refuse};
use crate::random::generator;

/// Size and weight of a data set in a mixture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Number of examples, at least 1.
    pub examples: usize,
    /// Weight, finite and above 0. Only its ratio to the other weights matters.
    pub weight: f64,
}

/// The order in which a set is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Order {
    /// The order of the file, in every pass.
    Given,
    /// A new random order for each pass.
    Shuffled,
}

/// Position of an example in the data sets of a mixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the set, from 0.
    pub set: usize,
    /// Number of the example in the set, from 0.
    pub example: usize,
}

/// Data sets with their weights, interleaved in a deterministic order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixture {
    sets: Vec<Set>,
    /// Sum of the parts of all sets.
    parts: u128,
    order: Order,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    examples: usize,
    /// Weight as an integer, so that release times and deadlines are compared exactly.
    parts: u128,
}

/// Bits of the largest weight as an integer. Integer ratios, such as those of sizes, are exact; rounding any other
/// ratio changes a share by about one example in 2⁵².
const BITS: i32 = 53;

impl Mixture {
    /// Creates a mixture of sets.
    ///
    /// # Errors
    ///
    /// [`TextError::Record`] for an empty list of sets, a set without examples, and a weight that is not finite and
    /// above 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use text::mixture::{Mixture, Order, Share};
    ///
    /// let shares = [Share { examples: 2, weight: 1.0 }, Share { examples: 10, weight: 2.0 }];
    /// let mixture = Mixture::new(&shares, Order::Given, 0)?;
    /// let places: Vec<_> = mixture.examples(0).take(6).map(|place| (place.set, place.example)).collect();
    /// assert_eq!(places, [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1), (1, 3)]);
    /// # Ok::<(), text::error::TextError>(())
    /// ```
    pub fn new(shares: &[Share], order: Order, seed: u64) -> Result<Self, TextError> {
        if shares.is_empty() {
            return Err(refuse("sets", "at least 1", 0));
        }
        for (index, share) in shares.iter().enumerate() {
            if share.examples == 0 {
                return Err(refuse(&format!("sets[{index}].examples"), "at least 1", 0));
            }
            if !(share.weight.is_finite() && share.weight > 0.0) {
                return Err(refuse(&format!("sets[{index}].weight"), "a finite number above 0", share.weight));
            }
        }
        let largest = shares.iter().map(|share| share.weight).fold(0.0, f64::max);
        let scale = scale(largest);
        let sets: Vec<_> = shares
            .iter()
            // A set with a negligible weight still has its turn, after a very long time.
            .map(|share| Set { examples: share.examples, parts: ((share.weight * scale).round() as u128).max(1) })
            .collect();
        let parts = sets.iter().map(|set| set.parts).sum();
        Ok(Self { sets, parts, order, seed })
    }

    /// Number of examples of all sets together. After this many examples, each set has been read once if the weights
    /// are the sizes of the sets.
    pub fn epoch(&self) -> u64 {
        self.sets.iter().map(|set| set.examples as u64).sum()
    }

    /// The infinite sequence of examples from a position on. The time to reach the position is proportional to it and
    /// to the number of sets: a few nanoseconds for each set and example.
    pub fn examples(&self, position: u64) -> Examples<'_> {
        let mut examples = Examples {
            mixture: self,
            taken: vec![0; self.sets.len()],
            position: 0,
            orders: vec![None; self.sets.len()],
        };
        for _ in 0..position {
            examples.take_one();
        }
        examples
    }

    /// The order of a set's examples in one pass.
    fn shuffled(&self, set: usize, pass: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.sets[set].examples).collect();
        order.shuffle(&mut generator([self.seed, set as u64, pass]));
        order
    }
}

/// The power of two that scales a weight to [`BITS`] bits before its binary point, so that the scaling rounds nothing.
fn scale(largest: f64) -> f64 {
    let (least, most) = (2.0_f64.powi(BITS - 1), 2.0_f64.powi(BITS));
    let mut scale = 1.0;
    while largest * scale >= most {
        scale /= 2.0;
    }
    while largest * scale < least && scale < f64::MAX / 2.0 {
        scale *= 2.0;
    }
    scale
}

/// Iterator over the examples of a mixture, in their order.
#[derive(Clone, Debug)]
pub struct Examples<'a> {
    mixture: &'a Mixture,
    /// Number of examples taken of each set.
    taken: Vec<u64>,
    /// Sum of `taken`.
    position: u64,
    /// The current pass of each set and its order.
    orders: Vec<Option<(u64, Vec<usize>)>>,
}

impl Examples<'_> {
    /// Number of examples before the next one, which is the position to resume from.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The set of the next example, and the number of its examples that were taken before.
    fn take_one(&mut self) -> (usize, u64) {
        let sets = &self.mixture.sets;
        let now = u128::from(self.position) + 1;
        let has_come = |set: &usize| u128::from(self.taken[*set]) * self.mixture.parts < now * sets[*set].parts;
        let due = |set: usize, other: usize| (u128::from(self.taken[set]) + 1) * sets[other].parts;
        let set = (0..sets.len()).filter(has_come).min_by(|one, other| due(*one, *other).cmp(&due(*other, *one)));
        // At least one set is released, as otherwise all released examples would have been taken.
        let set = set.unwrap_or(0);
        let number = self.taken[set];
        self.taken[set] += 1;
        self.position += 1;
        (set, number)
    }
}

impl Iterator for Examples<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let (set, number) = self.take_one();
        let count = self.mixture.sets[set].examples as u64;
        let (pass, index) = (number / count, (number % count) as usize);
        if self.mixture.order == Order::Given {
            return Some(Place { set, example: index });
        }
        let order = match self.orders[set].take() {
            Some((of, order)) if of == pass => order,
            _ => self.mixture.shuffled(set, pass),
        };
        let example = order[index];
        self.orders[set] = Some((pass, order));
        Some(Place { set, example })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares() -> impl Strategy<Value = Vec<Share>> {
        let weight = prop_oneof![0.01..1.0, 1e-6..1e6, (1_u32..20).prop_map(f64::from)];
        let share = (1_usize..30, weight).prop_map(|(examples, weight)| Share { examples, weight });
        prop::collection::vec(share, 1..12)
    }

    fn order() -> impl Strategy<Value = Order> {
        prop_oneof![Just(Order::Given), Just(Order::Shuffled)]
    }

    proptest! {
        #[test]
        fn after_any_number_of_examples_every_set_has_given_its_share_within_one(shares in shares()) {
            let mixture = Mixture::new(&shares, Order::Given, 0).unwrap();
            let sum: f64 = shares.iter().map(|share| share.weight).sum();
            let mut taken = vec![0.0; shares.len()];
            for (position, place) in mixture.examples(0).take(2000).enumerate() {
                taken[place.set] += 1.0;
                for (share, taken) in shares.iter().zip(&taken) {
                    let fair = (position + 1) as f64 * share.weight / sum;
                    prop_assert!((taken - fair).abs() < 1.0 + 1e-9, "{taken} instead of {fair} after {}", position + 1);
                }
            }
        }

        #[test]
        fn every_pass_of_a_set_visits_each_of_its_examples_once(shares in shares(), order in order(), seed: u64) {
            let mixture = Mixture::new(&shares, order, seed).unwrap();
            let mut visited = vec![Vec::new(); shares.len()];
            for place in mixture.examples(0).take(1000) {
                visited[place.set].push(place.example);
            }
            for (share, visited) in shares.iter().zip(visited) {
                for pass in visited.chunks_exact(share.examples) {
                    let mut pass = pass.to_vec();
                    if order == Order::Shuffled {
                        pass.sort_unstable();
                    }
                    prop_assert_eq!(pass, (0..share.examples).collect::<Vec<_>>());
                }
            }
        }

        #[test]
        fn a_mixture_goes_on_from_any_position_as_if_it_had_not_stopped(
            shares in shares(), order in order(), seed: u64, position in 0_usize..500,
        ) {
            let whole: Vec<_> = Mixture::new(&shares, order, seed).unwrap().examples(0).take(600).collect();
            let again = Mixture::new(&shares, order, seed).unwrap();
            let mut rest = again.examples(position as u64);
            prop_assert_eq!(rest.position(), position as u64);
            let rest: Vec<_> = rest.by_ref().take(100).collect();
            prop_assert_eq!(&rest, &whole[position..position + 100]);
        }

        #[test]
        fn sets_weighted_by_their_sizes_are_each_read_once_in_an_epoch(sizes in prop::collection::vec(1_usize..200, 1..8)) {
            let shares: Vec<_> =
                sizes.iter().map(|&examples| Share { examples, weight: examples as f64 }).collect();
            let mixture = Mixture::new(&shares, Order::Shuffled, 1).unwrap();
            let mut taken = vec![0; sizes.len()];
            for place in mixture.examples(0).take(mixture.epoch() as usize) {
                taken[place.set] += 1;
            }
            prop_assert_eq!(taken, sizes);
        }

        #[test]
        fn weights_are_ratios(shares in shares(), exponent in -300_i32..300) {
            let factor = 2.0_f64.powi(exponent);
            let scaled: Vec<_> =
                shares.iter().map(|share| Share { weight: share.weight * factor, ..*share }).collect();
            prop_assert_eq!(
                Mixture::new(&shares, Order::Given, 0).unwrap(),
                Mixture::new(&scaled, Order::Given, 0).unwrap()
            );
        }
    }

    #[test]
    fn each_set_and_pass_and_seed_has_an_order_of_its_own() {
        let share = Share { examples: 50, weight: 1.0 };
        let read = |seed: u64, set: usize, pass: usize| -> Vec<_> {
            let mixture = Mixture::new(&[share, share], Order::Shuffled, seed).unwrap();
            let places = mixture.examples(0).filter(|place| place.set == set).skip(pass * 50).take(50);
            places.map(|place| place.example).collect()
        };
        let orders = [read(0, 0, 0), read(1, 0, 0), read(0, 1, 0), read(0, 0, 1), (0..50).collect()];
        for (index, order) in orders.iter().enumerate() {
            assert!(!orders[..index].contains(order), "{index}");
        }
    }

    #[test]
    fn a_heavier_set_comes_as_evenly_as_it_can() {
        let shares = [Share { examples: 9, weight: 1.0 }, Share { examples: 9, weight: 3.0 }];
        let mixture = Mixture::new(&shares, Order::Given, 0).unwrap();
        let sets: Vec<_> = mixture.examples(0).take(12).map(|place| place.set).collect();
        assert_eq!(sets, [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1]);
    }

    #[test]
    fn weights_of_any_size_are_taken_together() {
        let share = |weight| Share { examples: 3, weight };
        let mixture = Mixture::new(&[share(f64::MAX), share(5e-324)], Order::Given, 0).unwrap();
        let mut taken = [0; 2];
        mixture.examples(0).take(100).for_each(|place| taken[place.set] += 1);
        assert!(taken[0] >= 99, "{taken:?}");
        assert!(Mixture::new(&[share(5e-324)], Order::Given, 0).unwrap().examples(0).nth(99).is_some());
    }

    #[test]
    fn what_is_no_mixture_is_refused_by_name() {
        let refused = |shares: &[Share]| Mixture::new(shares, Order::Given, 0).unwrap_err().to_string();
        assert_eq!(refused(&[]), "sets: expected at least 1, got 0");
        let good = Share { examples: 1, weight: 1.0 };
        assert_eq!(refused(&[good, Share { examples: 0, ..good }]), "sets[1].examples: expected at least 1, got 0");
        for (weight, given) in
            [(0.0, "0"), (-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")]
        {
            let message = format!("sets[1].weight: expected a finite number above 0, got {given}");
            assert_eq!(refused(&[good, Share { weight, ..good }]), message);
        }
    }
}
