//! Weighted sums.

use crate::batch::TokenBatch;
use crate::configured::{Configured, NAME};
use crate::data::Batch;
use crate::evaluation::Evaluation;
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::losses::dpo::Dpo;
use crate::losses::sft::Sft;
use crate::objective;
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Registered, Typed, Value};
use crate::registry::RegistryError;
use crate::requirements::{Coupling, Data, Requirements};
use crate::state::ObjectiveState;
use crate::{Objective, declared_parameters};

/// Declaration of a term's weight.
pub(crate) const WEIGHT: Parameter = Parameter {
    name: "weight",
    kind: Kind::Number { default: 1.0, range: NON_NEGATIVE },
    purpose: "Weight of the term",
};

objective! {
    /// A weighted sum of objectives on the same step.
    ///
    /// Several losses pull on the policy at once, each as hard as its weight says. The usual reason is that a loss on
    /// pairs is content to lower the rejected response, and imitation of the chosen one beside it keeps that probable.
    ///
    /// # Formula
    ///
    /// L = Σᵢ wᵢ Lᵢ, and likewise for the cotangents.
    ///
    /// Each term is a method with its parameters and a `weight` (1 unless given). All learn from the same responses,
    /// through the same states: terms on different data, with different sampling, or with different anticipation are an
    /// error. A term that imitates (`sft`) beside terms that compare pairs imitates the chosen responses. Weights that
    /// are all 0 are an error.
    ///
    /// ```toml
    /// [[method]]
    /// name = "sum"
    /// terms = [{ name = "dpo", beta = 0.2 }, { name = "sft", weight = 0.5 }]
    /// ```
    ///
    /// # Source
    ///
    /// The default, DPO and the chosen responses' likelihood, is that of R. Y. Pang et al., "Iterative Reasoning
    /// Preference Optimization", arXiv 2404.19733, with the likelihood's mean over tokens.
    ///
    /// # Examples
    ///
    /// One pair of one token each at the reference, with log π = −1 of the chosen: L = ln 2 + ½.
    ///
    /// ```
    /// use objective::{Batch, Configured, Dpo, Pairs, Sft, Side, Term, WeightedSum};
    ///
    /// let dpo = Term { weight: 1.0, method: Configured::of(Dpo::default())? };
    /// let sft = Term { weight: 0.5, method: Configured::of(Sft::default())? };
    /// let mut sum = WeightedSum { terms: vec![dpo, sft] }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = sum.evaluate(&Batch::Pairs(Pairs { chosen: side, rejected: side }))?;
    /// assert!((answer.loss - (2.0_f64.ln() + 0.5)).abs() < 1e-15);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Debug)]
    pub struct WeightedSum = "sum", "a weighted sum of methods on the same step", "arXiv 2404.19733 (the default)" {
        /// Methods by name, each with its parameters and its weight.
        terms: Vec<Term> = vec![Term::default_of::<Dpo>(), Term::default_of::<Sft>()],
    }
}

/// A term of a [`WeightedSum`].
#[derive(Clone, Debug)]
pub struct Term {
    /// Weight of the term's loss.
    pub weight: f64,
    /// The term's objective, as a method with its parameters.
    pub method: Configured,
}

const OWNER: &str = WeightedSum::METHOD.name;

impl Typed for Vec<Term> {
    type Range = ();

    fn kind(&self, (): ()) -> Kind {
        Kind::Terms { default: &[("dpo", 1.0), ("sft", 1.0)] }
    }

    fn value(&self) -> Option<Value> {
        let term = |term: &Term| {
            let mut parameters = Parameters::from(&term.method);
            parameters.insert(WEIGHT.name.to_owned(), term.weight.into());
            parameters
        };
        Some(Value::Terms(self.iter().map(term).collect()))
    }

    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError> {
        let given = match value {
            Value::Terms(given) if !given.is_empty() => given,
            other => return Err(parameter.invalid(owner, other)),
        };
        let terms = given.iter().cloned().map(Term::read).collect::<Result<Self, _>>()?;
        merged(&terms)?;
        if terms.iter().all(|term| term.weight == 0.0) {
            return Err(ParameterError::Invalid {
                owner,
                name: parameter.name,
                allowed: "at least one term with a weight above 0, as a sum without one trains nothing".to_owned(),
                given: "weights that are all 0".to_owned(),
            });
        }
        Ok(terms)
    }
}

impl Term {
    fn default_of<T: Registered + Objective>() -> Self {
        Self { weight: 1.0, method: Configured::unchecked(T::default()) }
    }

    fn read(mut parameters: Parameters) -> Result<Self, ParameterError> {
        let weight = match parameters.remove(WEIGHT.name) {
            None => 1.0,
            Some(value) => f64::read(OWNER, &WEIGHT, &value)?,
        };
        let refuse = |given: String| ParameterError::Invalid {
            owner: OWNER,
            name: "terms",
            allowed: "the name of a method other than sum in every term".to_owned(),
            given,
        };
        if parameters.get(NAME) == Some(&OWNER.into()) {
            return Err(refuse(OWNER.to_owned()));
        }
        match Configured::try_from(parameters) {
            Ok(method) => Ok(Term { weight, method }),
            Err(RegistryError::Parameter(error)) => Err(error),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// Converts the batch to the term's kind.
    fn view<'a>(&self, batch: &TokenBatch<'a>) -> TokenBatch<'a> {
        match self.method.objective().requirements().data {
            Data::Demonstrations => batch.demonstrations(),
            _ => *batch,
        }
    }
}

/// Combined requirements of all terms.
fn merged(terms: &[Term]) -> Result<Requirements, ParameterError> {
    let mut all = terms.iter().map(|term| (term.method.method().name, term.method.objective().requirements()));
    let first = all.next().map_or(Requirements::new(Data::Demonstrations), |(_, requirements)| requirements);
    all.try_fold(first, |before, (name, requirements)| merge(before, name, requirements))
}

/// Combined requirements of two terms, if the same responses serve both.
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
        ("teacher", a.teacher.is_some() && b.teacher.is_some() && a.teacher != b.teacher),
    ];
    match (data, differ.iter().find(|(_, differ)| *differ)) {
        (Some(data), None) => Ok(Requirements {
            data,
            coupling: if a.coupling == b.coupling { a.coupling } else { Coupling::Step },
            statistics: a.statistics | b.statistics,
            constants: a.constants | b.constants,
            weights: a.weights && b.weights,
            teacher: a.teacher.or(b.teacher),
            grouped: a.grouped || b.grouped,
            rewards: a.rewards.or(b.rewards),
            ..a
        }),
        (_, differ) => Err(ParameterError::Invalid {
            owner: OWNER,
            name: "terms",
            allowed: format!("terms that share their {}", differ.map_or("data", |(what, _)| what)),
            given: format!("{name}, which differs from those before it"),
        }),
    }
}

impl LearnsFrom for WeightedSum {
    type Data<'a> = Batch<'a>;
}

impl Objective for WeightedSum {
    fn requirements(&self) -> Requirements {
        merged(&self.terms).unwrap_or(Requirements::new(Data::Demonstrations))
    }

    declared_parameters!();

    fn hold(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, held: &mut Held) {
        state.terms.resize_with(self.terms.len(), ObjectiveState::default);
        held.terms.resize_with(self.terms.len(), Held::default);
        for ((term, state), held) in self.terms.iter().zip(&mut state.terms).zip(&mut held.terms) {
            term.method.objective().hold(&term.view(batch), state, held);
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let mut part = out.term.take().unwrap_or_default();
        for (term, held) in self.terms.iter().zip(&held.terms) {
            let view = term.view(batch);
            part.evaluate_held(term.method.objective(), &view, held);
            out.loss += term.weight * part.loss;
            for statistic in view.statistics() {
                let slots = out.cotangents.slots(statistic, 0..batch.tokens()).iter_mut();
                slots.zip(part.cotangents.column(statistic)).for_each(|(slot, own)| *slot += term.weight * own);
            }
            // Terms that report the same metric report the same quantity, so merging preserves its mean.
            out.metrics.merge(&part.metrics);
        }
        out.term = Some(part);
    }
}
