//! Figures: drawn as SVG with an embedded font, so that the same numbers have the same bytes on every machine.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The font of every figure.
pub const FONT: &str = "DejaVu Sans";
/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 44, 52);
/// That of what should not be looked at first.
pub const FAINT: RGBColor = RGBColor(205, 209, 216);
/// Colours that colour-blind readers can tell apart: M. Okabe and K. Ito, "Color Universal Design", 2008.
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
];

/// Where a figure is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// How drawing went.
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

/// The style of a text that is placed by these sides of it.
pub fn label(size: u32, colour: RGBColor, x: HPos, y: VPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour).pos(Pos::new(x, y))
}

/// Draws a title, and below it what holds for the whole figure.
///
/// # Errors
///
/// Those of the drawing library.
pub fn heading(area: &Area<'_>, title: &str, subtitle: &str) -> Drawn {
    area.draw(&Text::new(title.to_owned(), (20, 14), label(16, INK, HPos::Left, VPos::Top)))?;
    area.draw(&Text::new(subtitle.to_owned(), (20, 38), label(11, INK, HPos::Left, VPos::Top)))?;
    Ok(())
}
