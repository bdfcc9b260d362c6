//! The page that `lake --out` writes.

use lake::experiment::Experiment;
use lake::page;
use lake::recipe::{Overrides, Recipe};
use serde_json::Value;
use tests::command::program;

/// A report as JSON, and its page.
struct Drawn {
    page: String,
    report: Value,
}

/// Methods, separated by commas, under the default recipe with fields replaced.
fn draw(methods: &str, fields: &str) -> Drawn {
    let overrides = Overrides {
        fields: fields.parse().unwrap(),
        methods: methods.split(',').map(str::to_owned).collect(),
        assignments: Vec::new(),
    };
    let experiment = Experiment::new(Recipe::resolve(None, &overrides).unwrap()).unwrap();
    let report = experiment.run(|| {}).unwrap();
    let page = page::draw(experiment.environment(), &report).unwrap();
    // Through text, as numbers from a file are.
    Drawn { page, report: serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap() }
}

/// Text between the first occurrences of two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

/// The text of each cell of each row of a table's body.
fn cells(page: &str, table: &str) -> Vec<Vec<String>> {
    let body = between(page.split_once(&format!("<table id=\"{table}\">")).unwrap().1, "<tbody>", "</tbody>");
    let without_tags = |html: &str| {
        html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect::<String>()
    };
    let row = |row: &str| row.trim().replace("</th>", "</td>").split("</td>").map(without_tags).collect::<Vec<_>>();
    body.split("</tr>").map(row).filter(|row| row.len() > 1).map(|mut row| (row.pop(), row).1).collect()
}

/// Data for the page's script.
fn data(page: &str) -> Value {
    serde_json::from_str(between(page, "<script type=\"application/json\" id=\"data\">", "</script>")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn matrix(value: &Value) -> Vec<[f64; 4]> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn the_same_recipe_gives_the_same_page() {
    let folder = tempfile::tempdir().unwrap();
    let write = |threads| {
        let arguments = ["--method", "sft,dpo", "--seeds", "5", "--steps", "30", "--threads", threads, "--out"];
        let output = program().args(arguments).arg(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(folder.path().join("report.html")).unwrap()
    };
    let page = write("1");
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
    assert_eq!(page, write("2"));
    assert_eq!(page, draw("sft,dpo", "seeds = 5\nsteps = 30").page);
}

#[test]
fn the_page_asks_for_nothing_but_itself() {
    let page = draw("all", "seeds = 2\nsteps = 3").page;
    assert!(page.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';"));
    for text in ["http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn the_table_has_the_reports_numbers() {
    let Drawn { page, report } = draw("ift,dpo,grpo", "seeds = 4\nsteps = 40");
    let rows = cells(&page, "table");
    let results = report["results"].as_array().unwrap();
    assert_eq!(rows.len(), results.len() + 1);
    for (place, (row, result)) in rows.iter().zip(results).enumerate() {
        // What the seeds of two rows differ by, with Student's t(0.975; 3) = 3.182446.
        let from_above = place.checked_sub(1).map(|above| {
            let per_seed = |row: usize| results[row]["distance"]["per_seed"].as_array().unwrap();
            let pairs = per_seed(place).iter().zip(per_seed(above));
            let differences: Vec<_> = pairs.map(|(own, above)| number(own) - number(above)).collect();
            let mean = differences.iter().sum::<f64>() / 4.0;
            let squares = differences.iter().map(|difference| (difference - mean).powi(2)).sum::<f64>();
            format!("+{mean:.4} ± {:.4}", 3.182_446 * (squares / 3.0 / 4.0).sqrt())
        });
        let interval =
            |field: &str| format!("{:.4} ± {:.4}", number(&result[field]["mean"]), number(&result[field]["ci95"]));
        let fares =
            |field: &str| format!("{:.3} / {:.3}", number(&result[field]["greedy"]), number(&result[field]["sampled"]));
        let expected = [
            result["method"].as_str().unwrap().to_owned(),
            interval("distance"),
            from_above.unwrap_or_default(),
            interval("initial_distance"),
            fares("success_rate"),
            fares("return"),
            format!("{:.1} of 16", number(&result["cells_visited"]["mean"])),
        ];
        assert_eq!(row[..], expected);
    }
    let optimal = |field: &str| format!("{:.3}", number(&report["optimal"][field]));
    assert_eq!(rows[3], ["optimal", "0", "", "", &optimal("success_rate"), &optimal("return"), ""]);
    assert!(page.contains("Episodes sampled from the lake, each run: grpo"));
}

#[test]
fn the_slider_stops_at_every_step_of_the_curve() {
    let Drawn { page, report } = draw("ift,dpo", "seeds = 3\nsteps = 30");
    let data = data(&page);
    let steps = serde_json::json!([0, 1, 2, 5, 10, 20, 30]);
    assert_eq!(data["steps"], steps);
    assert!(page.contains("id=\"step\" min=\"0\" max=\"6\" step=\"1\" value=\"6\""));
    assert_eq!(data["optimal"], report["optimal"]["transition_matrix"]);
    for (method, result) in data["methods"].as_array().unwrap().iter().zip(report["results"].as_array().unwrap()) {
        assert_eq!(method["name"], result["method"]);
        assert_eq!(result["curve"]["steps"], steps);
        for field in ["mean", "ci95"] {
            assert_eq!(method[field], result["curve"][field]);
        }
        assert_eq!(method["snapshots"], result["snapshots"]);
        assert_eq!(method["snapshots"].as_array().unwrap().len(), 7);
    }
}

#[test]
fn snapshots_are_the_policies_whose_distances_the_curve_has() {
    let report = draw("ift,ppo", "seeds = 1\nsteps = 30").report;
    let optimal = matrix(&report["optimal"]["transition_matrix"]);
    let cells: Vec<_> =
        report["map"].as_array().unwrap().iter().flat_map(|row| row.as_str().unwrap().chars()).collect();
    let cells: Vec<_> = (0..cells.len()).filter(|&cell| !"HG".contains(cells[cell])).collect();
    for result in report["results"].as_array().unwrap() {
        let snapshots = result["snapshots"].as_array().unwrap();
        for (snapshot, mean) in snapshots.iter().zip(result["curve"]["mean"].as_array().unwrap()) {
            let distance = lake::measure::distance(&matrix(snapshot), &optimal, &cells);
            assert!((distance - number(mean)).abs() < 2e-6, "{distance}, {mean}");
        }
        let [last, learned] = [snapshots.last().unwrap(), &result["transition_matrix"]].map(matrix);
        for (last, learned) in last.iter().flatten().zip(learned.iter().flatten()) {
            assert!((last - learned).abs() <= 0.5001e-6, "{last}, {learned}");
        }
    }
}

#[test]
fn without_scripts_the_page_shows_the_last_step() {
    let Drawn { page, report } = draw("sft,ift", "seeds = 2\nsteps = 20");
    let learned = matrix(report["results"][0]["snapshots"].as_array().unwrap().last().unwrap());
    let optimal = matrix(&report["optimal"]["transition_matrix"]);
    let rows = cells(&page, "numbers");
    assert_eq!(rows.len(), 11);
    // The start is the first cell.
    let numbers = |row: &[f64; 4]| row.map(|probability| format!("{probability:.3}"));
    assert_eq!(rows[0][1..], [numbers(&optimal[0]), numbers(&learned[0])].concat());
    let lake = between(&page, "id=\"learned\"", "</svg>");
    for probability in numbers(&learned[0]) {
        assert!(lake.contains(&format!("fill-opacity=\"{probability}\"")), "{probability}");
    }
    assert!(between(&page, "<noscript>", "</noscript>").contains("┌─────────┐"));
}

#[test]
fn one_method_and_all_methods_have_their_place() {
    let choices = |page: &str| page.matches("name=\"method\"").count();
    let one = draw("ift", "seeds = 1\nsteps = 1").page;
    assert_eq!((choices(&one), one.contains('±')), (1, one.contains("\" ± \"")));
    let all = draw("all", "map = \"8x8\"\nseeds = 2\nsteps = 3").page;
    assert_eq!(choices(&all), objective::METHODS.len());
    assert_eq!(between(&all, "id=\"optimal\"", "</svg>").matches("data-cell").count(), 64);
}

#[test]
fn what_a_user_names_is_text_and_never_markup() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("<u>lake&.toml");
    std::fs::write(&map, "rows = [\"SFHG\", \"FFFF\"]\nsummary = \"<b>a & b</b></script>\"\n").unwrap();
    let page = draw("sft", &format!("map = {map:?}\nseeds = 1\nsteps = 1")).page;
    assert!(page.contains("&#60;b&#62;a &#38; b&#60;/b&#62;&#60;/script&#62;"));
    assert!(page.contains("&#60;u&#62;lake&#38;.toml"));
    for text in ["<b>a", "<u>", "</b></script>"] {
        assert!(!page.contains(text), "{text}");
    }
    assert_eq!(page.matches("</script>").count(), 2);
}

#[test]
fn the_page_says_how_to_make_it_again() {
    let Drawn { page, report } = draw("dpo", "seeds = 2\nseed = 7\nsteps = 3");
    let recipe = between(&page, "aria-label=\"Recipe\">", "</pre>").replace("&#34;", "\"");
    let recipe: toml::Table = recipe.parse().unwrap();
    assert_eq!(serde_json::to_value(recipe).unwrap(), report["recipe"]);
    assert!(page.contains("lake --recipe recipe.toml"));
    assert!(page.contains(&format!("version {}, seed 7", report["version"].as_str().unwrap())));
}
