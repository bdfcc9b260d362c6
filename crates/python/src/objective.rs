//! An objective that Python evaluates.

use std::sync::{Mutex, MutexGuard, PoisonError};

use objective::{
    Batch, Configured, Coupling, Data, Demonstrations, Evaluator, Groups, Labelled, Pairs, Parameters, Requirements,
    Rollouts, Side,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::columns::{Arrays, Cotangent, Selection, Slices, names};
use crate::error::value_error;
use crate::parameters;
use crate::totals::{self, Given};

/// A method at valid parameters, with its state between steps.
#[pyclass(subclass, frozen, module = "objective_lake")]
pub(crate) struct Objective {
    configured: Configured,
    requirements: Requirements,
    door: Mutex<Door>,
}

/// Numbers behind a stop-gradient in one evaluation: weights, baselines, advantages.
#[pyclass(frozen, module = "objective_lake")]
pub(crate) struct Held(objective::Held);

/// An evaluator, and buffers for the columns that it reads.
struct Door {
    evaluator: Evaluator<Box<dyn objective::Objective>>,
    buffers: Vec<Vec<f64>>,
}

/// A loss, the cotangents of each side and metrics.
struct Evaluated {
    loss: f64,
    cotangents: Vec<Vec<(&'static str, Cotangent)>>,
    metrics: Vec<(&'static str, f64)>,
}

/// A loss, the cotangents of each side by column, and metrics, as Python's objects.
type Answer<'py> = (f64, Bound<'py, PyList>, Bound<'py, PyDict>);

#[pymethods]
impl Objective {
    #[new]
    #[pyo3(signature = (name, /, **parameters))]
    fn new(name: &str, parameters: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let configured = Configured::named(name, &parameters::read(parameters)?).map_err(value_error)?;
        let evaluator = Evaluator::new(configured.clone().into_objective()).map_err(value_error)?;
        let requirements = configured.objective().requirements();
        Ok(Self { configured, requirements, door: Mutex::new(Door { evaluator, buffers: Vec::new() }) })
    }

    /// The method's name.
    #[getter]
    fn name(&self) -> &'static str {
        self.configured.method().name
    }

    /// The parameters in force, defaults included.
    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        parameters::write(py, &self.in_force())
    }

    /// The kind of data that the objective learns from: `"demonstrations"`, `"preferences"`, `"labelled"`, `"groups"`
    /// or `"rollouts"`.
    #[getter]
    fn data(&self) -> &'static str {
        self.requirements.data.into()
    }

    /// The names of the sides of the data. The columns of a side with an empty name are not nested under a name.
    #[getter]
    fn sides(&self) -> Vec<&'static str> {
        match self.requirements.data {
            Data::Preferences => vec!["chosen", "rejected"],
            Data::Labelled { mismatched: true } => vec!["", "mismatched"],
            _ => vec![""],
        }
    }

    /// The columns of tokens that have a derivative.
    #[getter]
    fn statistics(&self) -> Vec<&'static str> {
        self.requirements.statistics.iter().map(|statistic| statistic.name()).collect()
    }

    /// All columns that the objective reads.
    #[getter]
    fn columns(&self) -> Vec<&'static str> {
        names(&self.requirements).collect()
    }

    /// Whether the loss of a response depends on the others of the step, so that a step cannot be split.
    #[getter]
    fn coupled(&self) -> bool {
        self.requirements.coupling == Coupling::Step
    }

    /// Number of rewards per response, if the objective fixes it.
    #[getter]
    fn rewards(&self) -> Option<usize> {
        self.requirements.rewards
    }

    /// Evaluates flat arrays: for each side its columns by name, the bounds of its responses and a mask.
    #[pyo3(signature = (sides, totals=None, held=None))]
    fn evaluate_flat<'py>(
        &self,
        py: Python<'py>,
        sides: Vec<Arrays<'py>>,
        totals: Option<Given>,
        held: Option<&Held>,
    ) -> PyResult<Answer<'py>> {
        let slices = sides.iter().map(Arrays::borrow).collect::<PyResult<Vec<_>>>()?;
        let evaluated = py.detach(|| self.evaluate(&slices, totals.unwrap_or_default(), held)).map_err(value_error)?;
        let Evaluated { loss, cotangents, metrics } = evaluated;
        let answer = PyList::empty(py);
        for columns in cotangents {
            let side = PyDict::new(py);
            for (name, cotangent) in columns {
                side.set_item(name, cotangent.into_array(py))?;
            }
            answer.append(side)?;
        }
        let observed = PyDict::new(py);
        for (name, mean) in metrics {
            observed.set_item(name, mean)?;
        }
        Ok((loss, answer, observed))
    }

    /// The numbers behind a stop-gradient at flat arrays. The objective's state between steps stays as it was.
    #[pyo3(signature = (sides, totals=None))]
    fn hold_flat(&self, py: Python<'_>, sides: Vec<Arrays<'_>>, totals: Option<Given>) -> PyResult<Held> {
        let slices = sides.iter().map(Arrays::borrow).collect::<PyResult<Vec<_>>>()?;
        let hold = || {
            let state = self.door().evaluator.state().clone();
            let evaluated = self.evaluate(&slices, totals.unwrap_or_default(), None);
            let mut door = self.door();
            *door.evaluator.state_mut() = state;
            evaluated.map(|_| door.evaluator.held().clone())
        };
        py.detach(hold).map(Held).map_err(value_error)
    }

    /// The counts of flat arrays, a part of a step.
    fn totals_flat(&self, sides: Vec<Arrays<'_>>) -> PyResult<[usize; 5]> {
        let slices = sides.iter().map(Arrays::borrow).collect::<PyResult<Vec<_>>>()?;
        let selections = self.select(&slices).map_err(value_error)?;
        let group = groups(&slices).map_err(value_error)?;
        let lengths: Vec<_> = selections.iter().map(|selection| Side::of(&selection.lengths)).collect();
        Ok(totals::counts(self.batch(&lengths, &slices, &group).map_err(value_error)?.totals()))
    }

    /// The objective's state between steps, as JSON.
    fn state_json(&self) -> PyResult<String> {
        serde_json::to_string(self.door().evaluator.state()).map_err(value_error)
    }

    /// Restores the objective's state between steps.
    fn load_state_json(&self, json: &str) -> PyResult<()> {
        *self.door().evaluator.state_mut() = serde_json::from_str(json).map_err(value_error)?;
        Ok(())
    }
}

impl Objective {
    fn in_force(&self) -> Parameters {
        self.configured.objective().parameters()
    }

    /// The evaluator and its buffers. They are used again after a panic under the lock, as an evaluation overwrites all
    /// that another one left.
    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn select(&self, sides: &[Slices<'_>]) -> Result<Vec<Selection>, String> {
        let names = self.prefixes();
        if sides.len() != names.len() {
            return Err(format!("sides: expected {}, got {}", names.len(), sides.len()));
        }
        names.iter().zip(sides).map(|(name, side)| side.select(name)).collect()
    }

    /// The names of the sides in messages.
    fn prefixes(&self) -> &'static [&'static str] {
        match self.requirements.data {
            Data::Preferences => &["chosen.", "rejected."],
            Data::Labelled { mismatched: true } => &["", "mismatched."],
            _ => &[""],
        }
    }

    /// The data of the objective's kind.
    fn batch<'a>(&self, columns: &[Side<'a>], sides: &[Slices<'a>], group: &'a [usize]) -> Result<Batch<'a>, String> {
        Ok(match (self.requirements.data, columns) {
            (Data::Demonstrations, &[side]) => Demonstrations(side).into(),
            (Data::Rollouts, &[side]) => Rollouts(side).into(),
            (Data::Preferences, &[chosen, rejected]) => Pairs { chosen, rejected }.into(),
            (Data::Groups, &[side]) => {
                let (reward, responses) = (side.reward, Side { reward: &[], ..side });
                Groups { responses, group, reward }.into()
            }
            (Data::Labelled { .. }, &[responses, ref rest @ ..]) => {
                let mismatched = rest.first().copied().unwrap_or_default();
                Labelled { responses, desirable: sides[0].desirable, mismatched }.into()
            }
            _ => return Err(format!("sides: got {}", columns.len())),
        })
    }

    fn evaluate(&self, sides: &[Slices<'_>], totals: Given, held: Option<&Held>) -> Result<Evaluated, String> {
        let selections = self.select(sides)?;
        let group = groups(sides)?;
        let mut door = self.door();
        let Door { evaluator, buffers } = &mut *door;
        let needed = sides.iter().map(|side| side.numbers.len()).sum();
        if buffers.len() < needed {
            buffers.resize_with(needed, Vec::new);
        }
        let mut free = buffers.iter_mut();
        let mut columns = Vec::with_capacity(sides.len());
        for (side, selection) in sides.iter().zip(&selections) {
            let mut gathered = Side::of(&selection.lengths);
            for (&(column, numbers), buffer) in side.numbers.iter().zip(&mut free) {
                selection.gather(column, numbers, buffer);
                column.place(&mut gathered, buffer);
            }
            columns.push(gathered);
        }
        let batch = self.batch(&columns, sides, &group)?;
        let evaluator = evaluator.of_step(totals::of_step(totals, batch.totals())?);
        let answer = match held {
            None => evaluator.evaluate(&batch),
            Some(Held(held)) => evaluator.evaluate_held(&batch, held),
        };
        let answer = answer.map_err(|error| error.to_string())?;
        let mut first = 0;
        let cotangents = sides.iter().zip(&selections).map(|(side, selection)| {
            let own = selection.cotangents(&side.numbers, &answer.cotangents, first);
            first += selection.tokens();
            own
        });
        Ok(Evaluated { loss: answer.loss, cotangents: cotangents.collect(), metrics: answer.metrics.iter().collect() })
    }
}

/// The group of each response.
fn groups(sides: &[Slices<'_>]) -> Result<Vec<usize>, String> {
    let given = sides.first().map_or(&[] as &[i64], |side| side.group);
    let read =
        |&group: &i64| usize::try_from(group).map_err(|_| format!("group: expected numbers from 0, got {group}"));
    given.iter().map(read).collect()
}
