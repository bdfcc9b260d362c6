//! Methods explained in a terminal: a list of all, and a page for each. Everything comes from the registry.

use objective::parameter::Kind;
use objective::registry::{self, GIVEN};
use objective::{
    Anticipation, Coupling, Data, METHODS, Method, Parameter, ParameterError, Parameters, RegistryError, Requirements,
    Source, Value,
};

use crate::markdown::{INDENT, sections, text};
use crate::terminal::{DETAIL, HEADING, NAME, PROSE, styled, width, wrapped};

/// The section of worked examples, which are programs.
const EXAMPLES: &str = "Examples";
/// The section of the formula.
const FORMULA: &str = "Formula";
/// The section of the source.
const SOURCE: &str = "Source";

/// Lists the methods by the data that they learn from, one line per method.
///
/// # Errors
///
/// [`RegistryError`] if a method refuses its own defaults.
pub fn list(program: &str, columns: usize) -> Result<String, RegistryError> {
    let columns = columns.min(PROSE);
    let mut groups: Vec<(String, Vec<&Method>)> = Vec::new();
    for method in METHODS {
        let kind = learns_from(&requirements(method)?);
        match groups.iter_mut().find(|(group, _)| *group == kind) {
            Some((_, methods)) => methods.push(method),
            None => groups.push((kind, vec![method])),
        }
    }
    groups.push(("columns that no program here fills, for trainers of one's own".to_owned(), GIVEN.iter().collect()));
    let longest = groups.iter().flat_map(|(_, methods)| methods).map(|method| method.name.len()).max().unwrap_or(0);
    let line = |method: &&Method| {
        let name = styled(NAME, method.name) + &" ".repeat(longest - method.name.len());
        let others = " ".repeat(INDENT.len() + longest + 2);
        wrapped(&format!("{name}  {}", method.summary), columns, INDENT, &others) + "\n"
    };
    let mut shown = wrapped(
        &format!("Methods by what they learn from. {} explains one.", styled(NAME, &format!("{program} methods NAME"))),
        columns,
        "",
        "",
    ) + "\n";
    for (kind, methods) in &groups {
        let heading = wrapped(&capitalised(kind), columns, "", "");
        let lines: Vec<_> = heading.lines().map(|line| styled(HEADING, line)).collect();
        shown += &format!("\n{}\n", lines.join("\n"));
        shown += &methods.iter().map(line).collect::<String>();
    }
    Ok(shown)
}

/// Formats a method's page: idea, formula, parameters, requirements and source. `usage` is the command that runs the
/// method, with `NAME` in place of its name.
///
/// # Errors
///
/// [`RegistryError::Unknown`] if there is no such method.
pub fn page(name: &str, usage: &str, columns: usize) -> Result<String, RegistryError> {
    let columns = columns.min(PROSE);
    let method = registry::find(name)?;
    let whole = registry::find("policy_gradient")?;
    let preset = differences(method, whole);
    let own = sections(method.documentation);
    let section = |heading: &str| own.iter().find(|(other, _)| *other == heading).map(|(_, lines)| lines.clone());

    let mut shown = styled(HEADING, method.name) + "\n\n";
    shown += &text(&section("").unwrap_or_default(), columns);
    let formula = match &preset {
        Some(_) => {
            sections(whole.documentation).into_iter().find(|(heading, _)| *heading == FORMULA).map(|(_, lines)| lines)
        }
        None => section(FORMULA),
    };
    let mut add = |heading: &str, body: &str| shown += &format!("\n{}\n{body}", styled(HEADING, heading));
    if let Some(formula) = formula {
        add(FORMULA, &text(&formula, columns));
    }
    add("Parameters", &parameters(method, whole, preset.as_deref(), columns));
    add("Learns from", &needs(&requirements(method)?, columns));
    for (heading, lines) in own.iter().filter(|(heading, _)| !["", FORMULA, SOURCE, EXAMPLES].contains(heading)) {
        add(heading, &text(lines, columns));
    }
    match section(SOURCE) {
        Some(lines) => add(SOURCE, &text(&lines, columns)),
        None => add(SOURCE, &(wrapped(method.source, columns, INDENT, INDENT) + "\n")),
    }
    if METHODS.iter().any(|other| other.name == method.name) {
        add("Usage", &format!("{INDENT}{}\n", usage.replace("NAME", method.name)));
    }
    Ok(shown)
}

/// Requirements of a method at its defaults.
fn requirements(method: &Method) -> Result<Requirements, ParameterError> {
    Ok((method.build)(&Parameters::new())?.requirements())
}

/// The parameters of a preset of `policy_gradient` whose defaults differ from those of `policy_gradient`; `None` for a
/// method that is not a preset.
fn differences(method: &Method, whole: &Method) -> Option<Vec<Parameter>> {
    let (own, all) = ((method.parameters)(), (whole.parameters)());
    let is_preset = own.iter().map(|parameter| parameter.name).eq(all.iter().map(|parameter| parameter.name));
    let differ = own.into_iter().zip(all).filter(|(own, other)| own.kind != other.kind).map(|(own, _)| own);
    (is_preset && method.name != whole.name).then(|| differ.collect())
}

fn parameters(method: &Method, whole: &Method, preset: Option<&[Parameter]>, columns: usize) -> String {
    let described =
        |parameters: &[Parameter]| -> String { parameters.iter().map(|own| parameter(own, columns)).collect() };
    let Some(preset) = preset else {
        return match (method.parameters)().as_slice() {
            [] => format!("{INDENT}none\n"),
            parameters => described(parameters),
        };
    };
    let count = (whole.parameters)().len();
    let sentence = match preset {
        [] => format!("All {count} parameters of {0} at their defaults.", styled(NAME, whole.name)),
        _ => format!("The {count} parameters of {0}, with these defaults:", styled(NAME, whole.name)),
    };
    wrapped(&sentence, columns, INDENT, INDENT) + "\n" + &described(preset)
}

/// Name, default and range in a line, and the purpose below it.
fn parameter(parameter: &Parameter, columns: usize) -> String {
    let default = match (parameter.kind, parameter.default()) {
        (_, Value::Text(text)) => text,
        (_, other) => other.to_string(),
    };
    let allowed = match parameter.kind {
        Kind::Switch { .. } => "true or false".to_owned(),
        _ => parameter.allowed(),
    };
    let head = format!("{} = {default}", styled(NAME, parameter.name));
    let gap = " ".repeat(28_usize.saturating_sub(width(&head)).max(2));
    let line = wrapped(&format!("{head}{gap}{}", styled(DETAIL, &allowed)), columns, INDENT, "        ");
    format!("{line}\n{}\n", wrapped(parameter.purpose, columns, "      ", "      "))
}

/// Data, columns and other policies that a method needs.
fn needs(requirements: &Requirements, columns: usize) -> String {
    let mut needs = vec![capitalised(&learns_from(requirements)) + "."];
    if let Source::Sampled(sampling) = requirements.source {
        let (samples, epochs) = (sampling.samples, sampling.epochs);
        let steps = if epochs == 1 { "one optimizer step".to_owned() } else { format!("{epochs} optimizer steps") };
        needs.push(format!("Samples {samples} responses to each prompt, and takes {steps} on them."));
    }
    if requirements.need_reference() {
        needs.push("A frozen reference policy.".to_owned());
    }
    if requirements.need_teacher() {
        needs.push("A teacher.".to_owned());
    }
    if requirements.anticipation != Anticipation::Off {
        needs.push("States fused with the policy's own prediction of one step.".to_owned());
    }
    if requirements.coupling == Coupling::Step {
        needs.push("The whole step at once: the loss of a response depends on the others.".to_owned());
    }
    let paragraph = wrapped(&needs.join(" "), columns, INDENT, INDENT) + "\n";
    let statistics = requirements.statistics.iter().map(|column| (column.name(), column.meaning()));
    let constants = requirements.constants.iter().map(|column| (column.name(), column.meaning()));
    let rows = statistics.chain(constants).map(|(name, meaning)| {
        let head = styled(NAME, name) + &" ".repeat(20_usize.saturating_sub(name.len()).max(2));
        wrapped(&format!("{head}{meaning}"), columns, INDENT, &" ".repeat(22)) + "\n"
    });
    paragraph + &rows.collect::<String>()
}

/// Description of the responses of a step.
fn learns_from(requirements: &Requirements) -> String {
    let data = match requirements.data {
        Data::Demonstrations => "demonstrated responses",
        Data::Preferences => "pairs of a chosen and a rejected response",
        Data::Labelled { mismatched: false } => "responses labelled desirable or undesirable",
        Data::Labelled { mismatched: true } => {
            "responses labelled desirable or undesirable, and responses to other prompts"
        }
        Data::Groups => "groups of responses to the same prompt, with rewards",
        Data::Rollouts => "responses with advantages",
    };
    let sampled = if requirements.source == Source::Given { "" } else { ", sampled from the policy" };
    format!("{data}{sampled}")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text without styles, as printed where the output is no terminal.
    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn all() -> impl Iterator<Item = &'static Method> {
        METHODS.iter().chain(GIVEN)
    }

    #[test]
    fn the_list_has_every_method_once_within_the_columns() {
        for columns in [60, 80, 120] {
            let list = plain(&list("lake", columns).unwrap());
            for method in all() {
                let lines = list.lines().filter(|line| line.split_whitespace().next() == Some(method.name));
                assert_eq!(lines.count(), 1, "{}", method.name);
            }
            assert!(list.lines().all(|line| line.chars().count() <= columns), "{list}");
        }
    }

    #[test]
    fn every_page_has_idea_formula_parameters_data_and_source() {
        for method in all() {
            let shown = plain(&page(method.name, "lake --method NAME", 80).unwrap());
            for heading in ["Formula", "Parameters", "Learns from", "Source"] {
                assert!(shown.contains(&format!("\n\n{heading}\n  ")), "{}: no {heading}\n{shown}", method.name);
            }
            assert!(!shown.contains("```") && !shown.contains("](") && !shown.contains('\\'), "{shown}");
            let idea = shown.split("\n\nFormula\n").next().unwrap();
            assert!(idea.split_whitespace().count() > 5, "{}: {idea}", method.name);
        }
    }

    #[test]
    fn a_page_has_every_parameter_with_its_default_and_range() {
        let shown = plain(&page("dpo", "lake --method NAME", 80).unwrap());
        for line in [
            "  beta = 0.1                  a number, 1e-9 <= beta <= 1e6",
            "  weighting = none            one of none, wpo",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        assert!(shown.ends_with("Usage\n  lake --method dpo\n"), "{shown}");
        assert!(
            shown.contains("  reference_log_prob  log π_ref(yₜ|sₜ) of the frozen reference policy, nats\n"),
            "{shown}"
        );
        let simpo = plain(&page("simpo", "", 80).unwrap());
        assert!(simpo.contains("target_margin = 0.8 beta"), "{simpo}");
    }

    #[test]
    fn a_presets_page_names_what_differs_from_the_whole() {
        let shown = plain(&page("dr_grpo", "", 80).unwrap());
        assert!(shown.contains("scale = none") && shown.contains("aggregation = fixed_length"), "{shown}");
        assert!(!shown.contains("trust_region ="), "{shown}");
        assert!(shown.contains("parameters of policy_gradient, with these defaults:"), "{shown}");
    }

    #[test]
    fn lines_of_pages_fit_the_columns() {
        for method in all() {
            let shown = plain(&page(method.name, "lake --method NAME", 100).unwrap());
            let long: Vec<_> = shown.lines().filter(|line| line.chars().count() > 100).collect();
            assert!(long.is_empty(), "{}: {long:#?}", method.name);
        }
    }
}
