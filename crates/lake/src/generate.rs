//! Random lakes with a path to the goal, each determined by its size, its share of holes and a seed.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::LakeError;
use crate::map::{Cell, MOST_CELLS};
use crate::spelling::Spelled;

/// Prefix of the name of a generated lake.
pub const PREFIX: &str = "generated:";
/// Syntax of the name of a generated lake, for errors and help.
pub const SPELLING: &str = "generated:HEIGHTxWIDTH[,holes=NUMBER][,seed=SEED]";

/// Default probability of a hole: one minus the share of ice in Gymnasium's generator.
const HOLES: f64 = 0.2;
/// Default seed.
const SEED: u64 = 0;
/// Stream of the seed for lakes, different from those of an experiment's runs.
const STREAM: u64 = 256;

/// A random lake, written as in `generated:8x8,holes=0.2,seed=7`.
///
/// S is the first cell and G the last. A path is sampled first, uniformly over all words of height − 1 moves down and
/// width − 1 moves right; then every other cell is independently a hole with probability `holes`. So there is always a
/// path of height + width − 2 moves, and no lake is rejected. Of two lakes that differ only in `holes`, the one with
/// the larger value has all holes of the other.
///
/// Gymnasium's `generate_random_map` samples all cells, and repeats this until there is a path; if the first attempt is
/// likely to succeed, the two differ little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generated {
    /// Number of rows, at least 1.
    pub height: usize,
    /// Number of columns, at least 1; the lake has at least two cells.
    pub width: usize,
    /// Probability that a cell off the path is a hole, from 0 to 1.
    pub holes: f64,
    /// Seed of the lake.
    pub seed: u64,
}

impl Generated {
    /// Samples the cells, row by row.
    ///
    /// # Examples
    ///
    /// ```
    /// use lake::map::Map;
    ///
    /// let map = Map::load("generated:4x5,holes=0.3,seed=1")?;
    /// assert_eq!(map.moves_to_goal()[map.start()], Some(7));
    /// # Ok::<(), lake::LakeError>(())
    /// ```
    pub fn cells(&self) -> Vec<Cell> {
        let Self { height, width, holes, seed } = *self;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        let mut way = vec![false; height * width];
        let (mut down, mut right) = (height as u64 - 1, width as u64 - 1);
        let mut cell = 0;
        while down + right > 0 {
            if rng.random_range(0..down + right) < down {
                down -= 1;
                cell += width;
            } else {
                right -= 1;
                cell += 1;
            }
            way[cell] = true;
        }
        // Every cell uses one random number, so that neither the path nor `holes` changes those of others.
        let kind = |way: bool| if rng.random::<f64>() < holes && !way { Cell::Hole } else { Cell::Frozen };
        let mut cells: Vec<_> = way.into_iter().map(kind).collect();
        cells[0] = Cell::Start;
        cells[height * width - 1] = Cell::Goal;
        cells
    }
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { height, width, holes, seed } = self;
        write!(f, "{PREFIX}{height}x{width},holes={holes},seed={seed}")
    }
}

impl FromStr for Generated {
    type Err = LakeError;

    fn from_str(name: &str) -> Result<Self, LakeError> {
        let spelled = Spelled::new("map generated", PREFIX, name)?;
        let size = spelled.head;
        let sides = size.split_once('x').and_then(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)));
        let fits = |(height, width): &(usize, usize)| {
            height.checked_mul(*width).is_some_and(|cells| (2..=MOST_CELLS).contains(&cells))
        };
        let allowed = format!("HEIGHTxWIDTH of 2 to {MOST_CELLS} cells");
        let (height, width) = sides.filter(fits).ok_or_else(|| spelled.fail("size", &allowed, size))?;
        let mut lake = Self { height, width, holes: HOLES, seed: SEED };
        for &(field, value) in &spelled.fields {
            match field {
                "holes" => {
                    let holes = value.parse().ok().filter(|holes| (0.0..=1.0).contains(holes));
                    lake.holes = holes.ok_or_else(|| spelled.fail(field, "a number, 0 <= holes <= 1", value))?;
                }
                "seed" => lake.seed = spelled.seed(value)?,
                _ => return Err(spelled.fail(field, &format!("holes or seed, as in {SPELLING}"), value)),
            }
        }
        Ok(lake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Map;

    fn rows(name: &str) -> Vec<String> {
        Map::load(name).unwrap().rows()
    }

    #[test]
    fn a_name_is_spelled_out_with_what_it_left_out() {
        let lake: Generated = "generated:3x4".parse().unwrap();
        assert_eq!(lake.to_string(), "generated:3x4,holes=0.2,seed=0");
        assert_eq!(Map::load("generated:3x4,seed=5").unwrap().name(), "generated:3x4,holes=0.2,seed=5");
    }

    #[test]
    fn without_ice_off_the_way_only_the_way_is_left() {
        for seed in 0..50 {
            let map = Map::load(&format!("generated:5x7,holes=1,seed={seed}")).unwrap();
            assert_eq!(map.non_terminal().len(), 5 + 7 - 2);
            assert_eq!(map.moves_to_goal()[0], Some(5 + 7 - 2));
        }
    }

    #[test]
    fn more_holes_keep_those_there_were_and_seeds_differ() {
        let [few, many] = ["0.1", "0.4"].map(|holes| rows(&format!("generated:20x20,holes={holes},seed=3")).concat());
        assert!(few.chars().zip(many.chars()).all(|(few, many)| few != 'H' || many == 'H'));
        assert_ne!(rows("generated:20x20,seed=3"), rows("generated:20x20,seed=4"));
    }

    #[test]
    fn every_way_of_a_small_lake_is_as_likely_as_another_and_holes_come_at_their_rate() {
        // Six ways across 3x3; 6000 draws of one in six have a standard deviation of 29.
        let mut ways = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *ways.entry(rows(&format!("generated:3x3,holes=1,seed={seed}"))).or_insert(0) += 1;
        }
        assert_eq!(ways.len(), 6);
        assert!(ways.values().all(|&count: &i32| (count - 1000).abs() < 150), "{ways:?}");
        // 300 x 300 − 599 cells off the way at 0.25 have 22350 ± 129 holes.
        let holes = rows("generated:300x300,holes=0.25").concat().matches('H').count() as f64;
        assert!((holes - 22350.0).abs() < 650.0, "{holes}");
    }

    #[test]
    fn a_wrong_name_is_an_error_that_names_the_field() {
        for (name, texts) in [
            ("generated:8", ["map generated.size", "HEIGHTxWIDTH", "\"8\""]),
            ("generated:0x5", ["map generated.size", "2 to", "0x5"]),
            ("generated:99999x99999", ["map generated.size", "2 to", "99999x99999"]),
            ("generated:8x8,holes=2", ["map generated.holes", "0 <= holes <= 1", "\"2\""]),
            ("generated:8x8,holes=nan", ["map generated.holes", "0 <= holes <= 1", "\"nan\""]),
            ("generated:8x8,seed=-1", ["map generated.seed", "whole number", "\"-1\""]),
            ("generated:8x8,ice=1", ["map generated.ice", "holes or seed", "\"1\""]),
            ("generated:8x8,seed=1,seed=2", ["map generated.seed", "expected one value", "got \"1\" and \"2\""]),
            ("generated:8x8,holes=0.1,seed=2,holes=0.1", ["map generated.holes", "one value", "\"0.1\" and \"0.1\""]),
        ] {
            let error = Map::load(name).unwrap_err().to_string();
            assert!(texts.iter().all(|text| error.contains(text)), "{name}: {error}");
        }
    }
}
