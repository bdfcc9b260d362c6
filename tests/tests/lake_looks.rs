//! A method's look is the same in the figures and on the page, whichever methods are beside it.

use lake::experiment::Experiment;
use lake::experiment::recipe::{Overrides, Recipe};
use lake::render::figures::{self, Figure};
use lake::render::page;
use program::figure::{Colour, INK, contrast};
use program::look::Look;

/// The figures and the page of methods, separated by commas, after a few steps on a few seeds.
fn drawn(methods: &str) -> (Vec<Figure>, String) {
    let overrides = Overrides {
        fields: "seeds = 2\nsteps = 10".parse().unwrap(),
        methods: methods.split(',').map(str::to_owned).collect(),
        assignments: Vec::new(),
    };
    let experiment = Experiment::new(Recipe::resolve(None, &overrides).unwrap()).unwrap();
    let report = experiment.run(|| {}).unwrap();
    let figures = figures::draw(experiment.environment().map(), &report).unwrap();
    (figures, page::draw(experiment.environment(), &report).unwrap())
}

fn figure<'a>(figures: &'a [Figure], name: &str) -> &'a str {
    &figures.iter().find(|figure| figure.name == name).unwrap().svg
}

fn attribute(element: &str, name: &str) -> f64 {
    let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

/// The places of a figure's texts.
fn texts(svg: &str) -> Vec<(String, f64, f64)> {
    let text = |part: &str| {
        let (opening, rest) = part.split_once('>').unwrap();
        let opening = format!(" {opening}");
        (rest.split_once("</text>").unwrap().0.trim().to_owned(), attribute(&opening, "x"), attribute(&opening, "y"))
    };
    svg.split("<text ").skip(1).map(text).collect()
}

#[test]
fn a_method_has_one_colour_in_every_figure_and_on_the_page_whatever_is_beside_it() {
    for methods in ["ift", "ift,sft,dpo", "grpo,dpo,ppo,ift,hinge"] {
        let (figures, page) = drawn(methods);
        for method in methods.split(',') {
            let hex = Look::of(method).hex();
            for name in ["distance", "curve"] {
                let svg = figure(&figures, name).to_lowercase();
                assert!(svg.contains(&hex), "{methods}: {name} lacks {method}'s {hex}");
            }
            assert!(page.contains(&format!("--colour:{hex}")), "{methods}: the page lacks {method}'s {hex}");
        }
        // No other method's colour is there.
        for other in ["simpo", "orpo"] {
            let hex = Look::of(other).hex();
            assert!(!figure(&figures, "curve").to_lowercase().contains(&hex) && !page.contains(&hex), "{methods}");
        }
    }
}

#[test]
fn every_line_is_labelled_at_its_end_and_no_label_covers_another() {
    let (figures, page) = drawn("all");
    let svg = figure(&figures, "curve");
    let (width, height) = (attribute(svg, "width"), attribute(svg, "height"));
    let texts = texts(svg);
    let mut labels: Vec<_> = objective::METHODS
        .iter()
        .map(|method| {
            let own: Vec<_> = texts.iter().filter(|(text, ..)| text == method.name).collect();
            assert_eq!(own.len(), 1, "{}", method.name);
            (own[0].1, own[0].2)
        })
        .collect();
    // All begin at one place, to the right of every line.
    let right = svg
        .split("points=\"")
        .skip(1)
        .flat_map(|part| part.split_once('"').unwrap().0.split_whitespace())
        .map(|point| point.split_once(',').unwrap().0.parse::<f64>().unwrap())
        .fold(0.0, f64::max);
    assert!(labels.iter().all(|(x, _)| *x > right && *x < width - 40.0), "{labels:?}, {right}");
    labels.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert!(labels.windows(2).all(|pair| pair[1].1 - pair[0].1 >= 14.0), "{labels:?}");
    assert!(labels[0].1 > 40.0 && labels[labels.len() - 1].1 < height, "{labels:?}");
    for method in objective::METHODS {
        assert!(page.contains(&format!("<span>{}</span></span>", method.name)), "{}", method.name);
    }
}

#[test]
fn bars_are_horizontal_and_each_has_its_name_on_its_left_in_reading_order() {
    let (figures, _) = drawn("all");
    let texts = texts(figure(&figures, "distance"));
    let rows: Vec<_> = texts.iter().filter(|(text, ..)| objective::METHODS.iter().any(|m| m.name == text)).collect();
    assert_eq!(rows.len(), objective::METHODS.len());
    assert!(rows.windows(2).all(|pair| pair[1].2 - pair[0].2 >= 20.0 && pair[0].1 == pair[1].1));
}

#[test]
fn numbers_on_cells_have_a_contrast_of_at_least_4_5() {
    let (figures, _) = drawn("ift");
    let svg = figure(&figures, "policy-ift");
    // A number is drawn just behind what it stands on.
    let mut behind = None;
    let mut numbers = 0;
    for line in svg.split('<').skip(1) {
        let filled = line.split_once("fill=\"#").map(|(_, rest)| parse(&rest[..6]));
        if line.starts_with("text ") {
            let text = line.split_once('>').unwrap().1.trim();
            if text.contains('.') && text.parse::<f64>().is_ok() {
                numbers += 1;
                let ratio = contrast(filled.unwrap(), behind.unwrap());
                assert!(ratio >= 4.5, "{text}: {ratio}");
            }
        } else if let Some(colour) = filled {
            behind = Some(colour);
        }
    }
    assert_eq!(numbers, 11 * 9);
}

/// A colour from six hexadecimal digits.
fn parse(digits: &str) -> Colour {
    let part = |place: usize| u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).unwrap();
    let mut colour = INK;
    (colour.0, colour.1, colour.2) = (part(0), part(1), part(2));
    colour
}

#[test]
fn start_hole_and_goal_have_the_same_symbols_in_a_figure_and_on_the_page() {
    let (figures, page) = drawn("ift");
    let svg = figure(&figures, "policy-ift");
    // 4 holes on each of three lakes and one in the key.
    assert_eq!(svg.matches("fill=\"#464C58\"").count(), 4 * 3 + 1);
    assert_eq!(svg.matches("fill=\"#F0BE3C\"").count(), 3 + 1);
    assert!(!svg.contains(">\nG\n<"));
    let optimal = page.split_once("id=\"optimal\"").unwrap().1.split_once("</svg>").unwrap().0;
    let count = |class: &str| optimal.matches(&format!("class=\"{class}\"")).count();
    assert_eq!([count("start"), count("hole"), count("goal")], [1, 4, 1]);
    assert!(page.contains("◆ start, ● hole, ★ goal"));
}
