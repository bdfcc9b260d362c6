//! Colour, dash and marker of a method in every figure, page and comparison. They depend on its name alone, so that a
//! new method changes no other's.
//!
//! The six methods that the lake's paper compares have solid lines in colours that colour-blind readers can
//! distinguish. Every other method has a muted colour, a dashed line and a marker.

use plotters::prelude::*;

use crate::figure::{Area, Drawn};

/// Colour, dash and marker of a method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Colour of the method's lines, bars and markers.
    pub colour: RGBColor,
    /// Alternating lengths of the dashes and gaps of the method's line, in pixels; empty for a solid line.
    pub dash: &'static [u32],
    /// Marker on the method's line and beside its name.
    pub marker: Marker,
}

/// A shape that marks a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Marker {
    Disc,
    Square,
    Diamond,
    Up,
    Down,
    Plus,
    Cross,
    Ring,
    Frame,
    Rhomb,
}

/// Methods with colours of their own: blue, orange, green, purple, vermillion and sky blue of M. Okabe and K. Ito,
/// "Color Universal Design", 2008.
const PAPER: [(&str, RGBColor); 6] = [
    ("sft", RGBColor(0, 114, 178)),
    ("dpo", RGBColor(230, 159, 0)),
    ("orpo", RGBColor(0, 158, 115)),
    ("simpo", RGBColor(204, 121, 167)),
    ("tdpo", RGBColor(213, 94, 0)),
    ("ift", RGBColor(86, 180, 233)),
];

/// Methods whose looks are certain to differ, one for each pair of a dash and a marker. The look of any other name
/// comes from its hash.
const OTHERS: [&str; 45] = [
    "ppo",
    "online_dpo",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
    "cpo",
    "alphapo",
    "kto",
    "apo_zero_unpaired",
    "bco",
    "grpo",
    "cispo",
    "sapo",
    "luspo",
    "vespo",
    "rloo",
    "sum",
    "policy_gradient",
    "dr_grpo",
    "dapo",
    "bnpo",
    "gspo",
    "gspo_token",
    "gmpo",
    "reinforce_plus_plus",
    "remax",
    "gpg",
    "opo",
    "max_rl",
    "gdpo",
    "dppo_tv",
    "dppo_kl",
    "dro",
    "topr",
    "icepop",
];

/// Colours of methods without one of their own: slate, taupe and grey. Each has a contrast of at least 3 with a white
/// and with a dark page.
const QUIET: [RGBColor; 3] = [RGBColor(98, 114, 138), RGBColor(140, 123, 107), RGBColor(143, 143, 143)];
const DASHES: [&[u32]; 5] = [&[10, 4], &[3, 3], &[9, 3, 2, 3], &[15, 4, 5, 4], &[9, 3, 2, 3, 2, 3]];
const MARKERS: [Marker; 9] = [
    Marker::Square,
    Marker::Up,
    Marker::Diamond,
    Marker::Down,
    Marker::Plus,
    Marker::Ring,
    Marker::Cross,
    Marker::Frame,
    Marker::Rhomb,
];

impl Look {
    /// The look of a method, or of a label that a recipe gives one.
    pub fn of(name: &str) -> Self {
        if let Some((_, colour)) = PAPER.into_iter().find(|(paper, _)| *paper == name) {
            return Self { colour, dash: &[], marker: Marker::Disc };
        }
        // The numbers of dashes and markers have no common divisor, so 45 places in the list have different pairs.
        let place = OTHERS.iter().position(|other| *other == name).unwrap_or_else(|| hash(name));
        Self {
            colour: QUIET[place / 3 % QUIET.len()],
            dash: DASHES[place % DASHES.len()],
            marker: MARKERS[place % MARKERS.len()],
        }
    }

    /// The colour as `#rrggbb`.
    pub fn hex(&self) -> String {
        let RGBColor(red, green, blue) = self.colour;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// Draws the method's marker.
    ///
    /// # Errors
    ///
    /// Those of the drawing library.
    pub fn mark(&self, area: &Area<'_>, at: (i32, i32)) -> Drawn {
        let (outline, is_filled) = self.marker.outline();
        let place = |(x, y): &(f64, f64)| (at.0 + (5.0 * x).round() as i32, at.1 + (5.0 * y).round() as i32);
        if self.marker == Marker::Disc || self.marker == Marker::Ring {
            let radius = 4;
            area.draw(&Circle::new(at, radius, if is_filled { self.colour.filled() } else { WHITE.filled() }))?;
            area.draw(&Circle::new(at, radius, self.colour.stroke_width(2)))?;
            return Ok(());
        }
        let points: Vec<_> = outline.iter().map(place).collect();
        let fill = if is_filled { self.colour.filled() } else { WHITE.filled() };
        area.draw(&Polygon::new(points.clone(), fill))?;
        let closed = points.iter().chain(points.first()).copied().collect::<Vec<_>>();
        area.draw(&PathElement::new(closed, self.colour.stroke_width(if is_filled { 1 } else { 2 })))?;
        Ok(())
    }

    /// Draws a line in the method's colour and dashes.
    ///
    /// # Errors
    ///
    /// Those of the drawing library.
    pub fn line(&self, area: &Area<'_>, points: &[(i32, i32)], width: u32) -> Drawn {
        for part in dashed(points, self.dash) {
            area.draw(&PathElement::new(part, self.colour.stroke_width(width)))?;
        }
        Ok(())
    }
}

impl Marker {
    /// Corners in [−1, 1] with y downwards, and whether the shape is filled.
    pub fn outline(self) -> (Vec<(f64, f64)>, bool) {
        const ARM: f64 = 0.35;
        let plus = vec![
            (-ARM, -1.0),
            (ARM, -1.0),
            (ARM, -ARM),
            (1.0, -ARM),
            (1.0, ARM),
            (ARM, ARM),
            (ARM, 1.0),
            (-ARM, 1.0),
            (-ARM, ARM),
            (-1.0, ARM),
            (-1.0, -ARM),
            (-ARM, -ARM),
        ];
        let square = |half: f64| vec![(-half, -half), (half, -half), (half, half), (-half, half)];
        let diamond = vec![(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)];
        let circle = || {
            let corner = |place: u32| (f64::from(place) * std::f64::consts::TAU / 24.0).sin_cos();
            (0..24).map(corner).collect()
        };
        match self {
            Self::Disc => (circle(), true),
            Self::Ring => (circle(), false),
            Self::Square => (square(0.8), true),
            Self::Frame => (square(0.8), false),
            Self::Diamond => (diamond, true),
            Self::Rhomb => (diamond, false),
            Self::Up => (vec![(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)], true),
            Self::Down => (vec![(0.0, 1.0), (1.0, -0.8), (-1.0, -0.8)], true),
            Self::Plus => (plus, true),
            Self::Cross => {
                let turn = std::f64::consts::FRAC_1_SQRT_2;
                (plus.into_iter().map(|(x, y)| (turn * (x - y), turn * (x + y))).collect(), true)
            }
        }
    }
}

/// The FNV-1a hash of a text.
fn hash(name: &str) -> usize {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // There are 135 combinations of colours, dashes and markers.
    (hash % 135) as usize
}

/// A line divided into its dashes.
fn dashed(points: &[(i32, i32)], pattern: &[u32]) -> Vec<Vec<(i32, i32)>> {
    if pattern.is_empty() {
        return vec![points.to_vec()];
    }
    let round = |(x, y): (f64, f64)| (x.round() as i32, y.round() as i32);
    let mut turns = pattern.iter().map(|length| f64::from(*length)).cycle();
    let (mut left, mut is_on) = (turns.next().unwrap_or(1.0), true);
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    for pair in points.windows(2) {
        let [from, to] = [pair[0], pair[1]].map(|(x, y)| (f64::from(x), f64::from(y)));
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let at = |way: f64| (from.0 + (to.0 - from.0) * way / length, from.1 + (to.1 - from.1) * way / length);
        let mut way = 0.0;
        while way < length {
            if is_on && part.is_empty() {
                part.push(round(at(way)));
            }
            let step = left.min(length - way);
            way += step;
            left -= step;
            if is_on {
                part.push(round(at(way)));
            }
            if left <= 0.0 {
                if is_on {
                    parts.push(std::mem::take(&mut part));
                }
                is_on = !is_on;
                left = turns.next().unwrap_or(1.0);
            }
        }
    }
    if part.len() > 1 {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{COLOURS, contrast};

    #[test]
    fn the_papers_six_have_the_safe_colours_to_themselves() {
        for name in OTHERS.into_iter().chain(["mine", "base", "sft+dpo", "SFT"]) {
            let look = Look::of(name);
            assert!(!COLOURS.contains(&look.colour) && !look.dash.is_empty(), "{name}");
        }
        for (name, colour) in PAPER {
            assert!(COLOURS.contains(&colour), "{name}");
            assert_eq!(Look::of(name), Look { colour, dash: &[], marker: Marker::Disc });
        }
    }

    #[test]
    fn no_two_methods_differ_in_less_than_dash_or_marker() {
        let looks: Vec<_> = OTHERS.map(Look::of).into_iter().map(|look| (look.dash, look.marker)).collect();
        for (place, look) in looks.iter().enumerate() {
            assert!(!looks[..place].contains(look), "{}", OTHERS[place]);
        }
    }

    #[test]
    fn a_look_stays_that_of_its_name() {
        let look = |name: &str| {
            let Look { dash, marker, .. } = Look::of(name);
            (Look::of(name).hex(), dash, marker)
        };
        assert_eq!(look("ift"), ("#56b4e9".to_owned(), &[][..], Marker::Disc));
        assert_eq!(look("ppo"), ("#62728a".to_owned(), &[10, 4][..], Marker::Square));
        assert_eq!(look("sum"), ("#8f8f8f".to_owned(), &[3, 3][..], Marker::Rhomb));
    }

    #[test]
    fn quiet_colours_are_seen_on_white_and_on_dark_pages() {
        for colour in QUIET {
            for page in [WHITE, RGBColor(24, 30, 39)] {
                assert!(contrast(colour, page) >= 3.0, "{colour:?} on {page:?}: {}", contrast(colour, page));
            }
        }
    }

    #[test]
    fn dashes_go_on_around_corners() {
        let parts = dashed(&[(0, 0), (6, 0), (6, 6)], &[4, 2]);
        assert_eq!(parts, [vec![(0, 0), (4, 0)], vec![(6, 0), (6, 4)]]);
        assert_eq!(dashed(&[(0, 0), (3, 0), (3, 9)], &[5, 2]), [vec![(0, 0), (3, 0), (3, 2)], vec![(3, 4), (3, 9)]]);
    }
}
