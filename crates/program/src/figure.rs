//! Figures: drawn as SVG with an embedded font, so that the same numbers have the same bytes on every machine.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The font of every figure.
pub const FONT: &str = "DejaVu Sans";
/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 44, 52);
/// Colour of elements that should not attract attention.
pub const FAINT: RGBColor = RGBColor(205, 209, 216);
/// Colours that colour-blind readers can tell apart: M. Okabe and K. Ito, "Color Universal Design", 2008.
pub const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(240, 228, 66),
    RGBColor(0, 0, 0),
];

/// A colour of a figure.
pub type Colour = RGBColor;
/// Drawing area of a figure.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Result of drawing.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The SVG of a figure of this size.
///
/// # Errors
///
/// Those of `draw`, and of the drawing library.
pub fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, Box<dyn std::error::Error>> {
    static FONT_IS_REGISTERED: Once = Once::new();
    FONT_IS_REGISTERED.call_once(|| {
        // A font that does not parse shows as an error of the first drawing.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    // Readers without the font see their own sans-serif.
    Ok(svg.replace(&format!("font-family=\"{FONT}\""), &format!("font-family=\"{FONT}, sans-serif\"")))
}

/// Style of a text that is positioned by these sides of it.
pub fn label(size: u32, colour: RGBColor, x: HPos, y: VPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour).pos(Pos::new(x, y))
}

/// Draws a title, and a subtitle below it.
///
/// # Errors
///
/// Those of the drawing library.
pub fn heading(area: &Area<'_>, title: &str, subtitle: &str) -> Drawn {
    area.draw(&Text::new(title.to_owned(), (20, 14), label(16, INK, HPos::Left, VPos::Top)))?;
    area.draw(&Text::new(subtitle.to_owned(), (20, 38), label(11, INK, HPos::Left, VPos::Top)))?;
    Ok(())
}

/// The ratio of two colours' luminances, from 1 to 21: WCAG 2.
pub fn contrast(one: RGBColor, other: RGBColor) -> f64 {
    let luminance = |RGBColor(red, green, blue): RGBColor| {
        let linear = |part: u8| match f64::from(part) / 255.0 {
            part if part <= 0.04045 => part / 12.92,
            part => ((part + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    };
    let [one, other] = [one, other].map(|colour| luminance(colour) + 0.05);
    one.max(other) / one.min(other)
}

/// Black or white, whichever has the greater contrast with a colour; the contrast is always at least 4.58.
pub fn readable_on(colour: RGBColor) -> RGBColor {
    if contrast(BLACK, colour) >= contrast(WHITE, colour) { BLACK } else { WHITE }
}

/// Round numbers from 0 to at most `top`, about `count` of them, with the number of decimals that they need.
pub fn ticks(top: f64, count: f64) -> (Vec<f64>, usize) {
    let space = round_space(top / count);
    let decimals = (-space.log10().floor()).max(0.0) as usize;
    ((0..).map(|tick| f64::from(tick) * space).take_while(|tick| *tick <= top).collect(), decimals)
}

/// The smallest number that is 1, 2 or 5 times a power of ten and at least the given space.
fn round_space(space: f64) -> f64 {
    let power = 10_f64.powf(space.log10().floor());
    [1.0, 2.0, 5.0].map(|factor| factor * power).into_iter().find(|round| *round >= space).unwrap_or(10.0 * power)
}

/// Moves the wanted positions so that they are at least `gap` apart and between `least` and `most`. Their order is
/// kept.
pub fn spread(wanted: &[f64], gap: f64, least: f64, most: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    // Neighbours that are too close form a group, centred at the mean of its members' wanted positions.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    let room = (most - gap * wanted.len().saturating_sub(1) as f64).max(least);
    for (place, index) in order.iter().enumerate() {
        // Position of the first label of a packed group.
        groups.push(((wanted[*index] - gap * place as f64).clamp(least, room), 1));
        while let [.., (before, members), (last, own)] = groups.as_slice() {
            if before <= last {
                break;
            }
            let count = members + own;
            let mean = (before * *members as f64 + last * *own as f64) / count as f64;
            groups.truncate(groups.len() - 2);
            groups.push((mean, count));
        }
    }
    let mut places = vec![0.0; wanted.len()];
    let first = groups.iter().flat_map(|(first, members)| std::iter::repeat_n(*first, *members));
    for (place, (index, first)) in order.into_iter().zip(first).enumerate() {
        places[index] = first + gap * place as f64;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_readable_on_every_colour() {
        for grey in 0..=255 {
            let background = RGBColor(grey, grey, grey);
            assert!(contrast(readable_on(background), background) >= 4.5, "{grey}");
        }
        assert!((contrast(BLACK, WHITE) - 21.0).abs() < 1e-12);
        // WCAG's own example of what just passes level AA: #767676 on white.
        assert!((contrast(RGBColor(0x76, 0x76, 0x76), WHITE) - 4.54).abs() < 0.005);
    }

    #[test]
    fn labels_are_spread_as_little_as_they_need() {
        let near = |places: Vec<f64>, expected: &[f64]| {
            assert!(places.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{places:?}");
        };
        near(spread(&[10.0, 50.0], 12.0, 0.0, 100.0), &[10.0, 50.0]);
        near(spread(&[50.0, 50.0, 50.0], 10.0, 0.0, 100.0), &[40.0, 50.0, 60.0]);
        near(spread(&[2.0, 0.0], 10.0, 0.0, 100.0), &[10.0, 0.0]);
        near(spread(&[99.0, 100.0], 10.0, 0.0, 100.0), &[90.0, 100.0]);
        let many: Vec<_> = (0..33).map(|place| f64::from(place % 5)).collect();
        let mut places = spread(&many, 14.0, 0.0, 600.0);
        places.sort_by(f64::total_cmp);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 14.0 - 1e-9), "{places:?}");
    }

    #[test]
    fn ticks_are_at_round_numbers() {
        for (space, round) in [(0.03, 0.05), (0.05, 0.05), (0.011, 0.02), (0.6, 1.0), (1.0, 1.0), (7.0, 10.0)] {
            assert!((round_space(space) - round).abs() < 1e-12, "{space}: {}", round_space(space));
        }
        assert_eq!(ticks(0.23, 5.0), (vec![0.0, 0.05, 0.1, 0.15000000000000002, 0.2], 2));
    }
}
