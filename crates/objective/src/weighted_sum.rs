//! A weighted sum of objectives on the same step.
//!
//! # Formula
//!
//! L = Σᵢ wᵢ Lᵢ, and so are its cotangents.
//!
//! # Terms
//!
//! Each term is a method with its parameters and a `weight` (1 unless given). All learn from the same responses,
//! through the same states: terms on different data, with different sampling, or with different anticipation are an
//! error. A term that imitates (`sft`) beside terms that compare pairs imitates the chosen responses. Weights that are
//! all 0 are an error.
//!
//! ```toml
//! [[method]]
//! name = "sum"
//! terms = [{ name = "dpo", beta = 0.2 }, { name = "sft", weight = 0.5 }]
//! ```
//!
//! # Source
//!
//! The default, DPO and the chosen responses' likelihood, is that of R. Y. Pang et al., "Iterative Reasoning Preference
//! Optimization", arXiv 2404.19733, with the likelihood's mean over tokens.
//!
//! # Examples
//!
//! One pair of one token each at the reference, with log π = −1 of the chosen: L = ln 2 + 1.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::new(0..1), Response::new(1..2)];
//! # let pairs = [Pair { chosen: 0, rejected: 1 }];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &pairs);
//! let sum = registry::build("sum", &Parameters::new())?;
//! # let batch = TokenBatch::new(&sum.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! sum.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert!((evaluation.loss - (2.0_f64.ln() + 1.0)).abs() < 1e-15);
//! assert_eq!(evaluation.cotangents.log_prob, [-1.05, 0.05]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use enumset::EnumSet;

use crate::Objective;
use crate::batch::TokenBatch;
use crate::configured::{Configured, NAME};
use crate::evaluation::Evaluation;
use crate::held::Held;
use crate::method::Method;
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader, Value};
use crate::registry::RegistryError;
use crate::requirements::{Coupling, Data, Requirements};
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "sum",
    summary: "a weighted sum of methods on the same step",
    source: "arXiv 2404.19733 (the default)",
    parameters: &[TERMS],
    build,
};

/// The terms.
pub const TERMS: Parameter = Parameter {
    name: "terms",
    kind: Kind::Terms { default: &[("dpo", 1.0), ("sft", 1.0)] },
    purpose: "methods by name, each with its parameters and its weight",
};

/// A term's weight.
pub const WEIGHT: Parameter = Parameter {
    name: "weight",
    kind: Kind::Number { default: 1.0, range: NON_NEGATIVE },
    purpose: "what the term counts",
};

/// A weighted sum of objectives.
///
/// Terms learn from the same step:
///
/// ```
/// use objective::Configured;
///
/// let sum = serde_json::json!({ "name": "sum", "terms": [{ "name": "dpo" }, { "name": "kto" }] });
/// assert_eq!(
///     serde_json::from_value::<Configured>(sum).unwrap_err().to_string(),
///     "sum.terms: expected terms that share their data, got kto, which differs from those before it"
/// );
/// ```
#[derive(Debug)]
pub struct WeightedSum {
    terms: Vec<Term>,
    requirements: Requirements,
}

#[derive(Debug)]
struct Term {
    weight: f64,
    configured: Configured,
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    let terms = reader.terms(&TERMS)?.into_iter().map(term).collect::<Result<Vec<_>, _>>()?;
    let mut merged: Option<Requirements> = None;
    for Term { configured, .. } in &terms {
        let (name, requirements) = (configured.method().name, configured.objective().requirements());
        merged = Some(match merged {
            None => requirements,
            Some(before) => merge(before, name, requirements)?,
        });
    }
    if !terms.is_empty() && terms.iter().all(|term| term.weight == 0.0) {
        return Err(ParameterError::Invalid {
            owner: METHOD.name,
            name: TERMS.name,
            allowed: "at least one term with a weight above 0, as a sum without one trains nothing".to_owned(),
            given: "weights that are all 0".to_owned(),
        });
    }
    match merged {
        Some(requirements) => Ok(Box::new(WeightedSum { terms, requirements })),
        None => Err(TERMS.invalid(METHOD.name, &Value::Terms(Vec::new()))),
    }
}

fn term(mut parameters: Parameters) -> Result<Term, ParameterError> {
    let weight = match parameters.remove(WEIGHT.name) {
        None => 1.0,
        Some(Value::Number(weight)) => WEIGHT.check(METHOD.name, weight)?,
        Some(other) => return Err(WEIGHT.invalid(METHOD.name, &other)),
    };
    let refuse = |given: String| ParameterError::Invalid {
        owner: METHOD.name,
        name: TERMS.name,
        allowed: "the name of a method other than sum in every term".to_owned(),
        given,
    };
    if parameters.get(NAME) == Some(&METHOD.name.into()) {
        return Err(refuse(METHOD.name.to_owned()));
    }
    match Configured::try_from(parameters) {
        Ok(configured) => Ok(Term { weight, configured }),
        Err(RegistryError::Parameter(error)) => Err(error),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// What both ask for, if one step can give it.
fn merge(a: Requirements, name: &str, b: Requirements) -> Result<Requirements, ParameterError> {
    let data = match (a.data, b.data) {
        (Data::Labelled { mismatched: one }, Data::Labelled { mismatched: other }) => {
            Some(Data::Labelled { mismatched: one || other })
        }
        (Data::Demonstrations | Data::Preferences, Data::Preferences) | (Data::Preferences, Data::Demonstrations) => {
            Some(Data::Preferences)
        }
        (one, other) => (one == other).then_some(one),
    };
    let differ = [
        ("data", data.is_none()),
        ("sampling", a.source != b.source),
        ("anticipation", a.anticipation != b.anticipation),
    ];
    match (data, differ.iter().find(|(_, differ)| *differ)) {
        (Some(data), None) => Ok(Requirements {
            data,
            coupling: if a.coupling == b.coupling { a.coupling } else { Coupling::Step },
            statistics: a.statistics | b.statistics,
            constants: a.constants | b.constants,
            ..a
        }),
        (_, differ) => Err(ParameterError::Invalid {
            owner: METHOD.name,
            name: TERMS.name,
            allowed: format!("terms that share their {}", differ.map_or("data", |(what, _)| what)),
            given: format!("{name}, which differs from those before it"),
        }),
    }
}

impl Objective for WeightedSum {
    fn requirements(&self) -> Requirements {
        self.requirements
    }

    fn parameters(&self) -> Parameters {
        let term = |term: &Term| {
            let mut parameters = Parameters::from(&term.configured);
            parameters.insert(WEIGHT.name.to_owned(), term.weight.into());
            parameters
        };
        [(TERMS.name.to_owned(), Value::Terms(self.terms.iter().map(term).collect()))].into()
    }

    fn hold(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, held: &mut Held) {
        state.terms.resize_with(self.terms.len(), ObjectiveState::default);
        held.terms.resize_with(self.terms.len(), Held::default);
        for ((term, state), held) in self.terms.iter().zip(&mut state.terms).zip(&mut held.terms) {
            term.configured.objective().hold(&term.view(batch), state, held);
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let mut part = out.term.take().unwrap_or_default();
        for (term, held) in self.terms.iter().zip(&held.terms) {
            let view = term.view(batch);
            part.reset(&view);
            term.configured.objective().loss(&view, held, &mut part);
            out.loss += term.weight * part.loss;
            for statistic in EnumSet::all() {
                let slots = out.cotangents.column_mut(statistic).iter_mut();
                slots.zip(part.cotangents.column(statistic)).for_each(|(slot, own)| *slot += term.weight * own);
            }
            // Terms that report the same metric report the same quantity, so that its mean stays what it is.
            out.metrics.merge(&part.metrics);
            out.metrics.merge(&held.metrics);
        }
        out.term = Some(part);
    }
}

impl Term {
    /// The batch that the term learns from: of pairs, a term that imitates reads the chosen responses.
    fn view<'a>(&self, batch: &TokenBatch<'a>) -> TokenBatch<'a> {
        match self.configured.objective().requirements().data {
            Data::Demonstrations => batch.demonstrations(),
            _ => *batch,
        }
    }
}
