//! Columns as the package's Python code arranges them, and the parts of them that an objective reads.

use std::ops::Range;

use enumset::EnumSet;
use numpy::{PyArray1, PyReadonlyArray1};
use objective::{BatchError, Constant, Cotangents, Data, Requirements, Side, Statistic};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::error::{type_error, value_error};

/// The name of the column of returns, as `return` is a word of Python's own.
const RETURNS: &str = "returns";

/// The column that says whether a response is desirable.
const DESIRABLE: &str = "desirable";
/// The column of the group of each response.
const GROUP: &str = "group";

/// The names of all columns that an objective reads.
pub(crate) fn names(requirements: &Requirements) -> impl Iterator<Item = &'static str> + use<> {
    let constants = requirements.constants | EnumSet::from_iter(requirements.weights.then_some(Constant::Weight));
    let of_responses = [(matches!(requirements.data, Data::Labelled { .. }), DESIRABLE), (requirements.grouped, GROUP)];
    let of_responses = of_responses.into_iter().filter_map(|(read, name)| read.then_some(name));
    of(requirements.statistics, constants).chain(of_responses)
}

/// The name of every column that an objective may read.
#[pyfunction(name = "columns")]
pub(crate) fn all() -> Vec<&'static str> {
    of(EnumSet::all(), EnumSet::all()).chain([DESIRABLE, GROUP]).collect()
}

fn of(statistics: EnumSet<Statistic>, constants: EnumSet<Constant>) -> impl Iterator<Item = &'static str> {
    let constant = |constant: Constant| if constant == Constant::Return { RETURNS } else { constant.name() };
    statistics.iter().map(Statistic::name).chain(constants.iter().map(constant))
}

/// The arrays of one side, all of one dimension. Response n has the places `bounds[n]..bounds[n + 1]` of the columns of
/// tokens, except those that the mask excludes.
pub(crate) struct Arrays<'py> {
    numbers: Vec<(Column, Array<'py>)>,
    desirable: Option<PyReadonlyArray1<'py, bool>>,
    group: Option<PyReadonlyArray1<'py, i64>>,
    bounds: PyReadonlyArray1<'py, i64>,
    mask: Option<PyReadonlyArray1<'py, bool>>,
}

/// A column of numbers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Column {
    Statistic(Statistic),
    Constant(Constant),
}

enum Array<'py> {
    Single(PyReadonlyArray1<'py, f32>),
    Double(PyReadonlyArray1<'py, f64>),
}

/// The numbers of a column.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

/// The arrays of one side, borrowed.
pub(crate) struct Slices<'a> {
    pub(crate) numbers: Vec<(Column, Numbers<'a>)>,
    pub(crate) desirable: &'a [bool],
    pub(crate) group: &'a [i64],
    bounds: &'a [i64],
    mask: Option<&'a [bool]>,
}

/// Places of the tokens that a mask selects.
pub(crate) struct Selection {
    /// Number of tokens in each response.
    pub(crate) lengths: Vec<usize>,
    runs: Vec<Range<usize>>,
    places: usize,
}

/// Cotangents of a column, in the column's precision and at the column's places.
pub(crate) enum Cotangent {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Column {
    fn find(name: &str) -> Option<Self> {
        let statistic = EnumSet::all().iter().find(|statistic: &Statistic| statistic.name() == name);
        let is_named =
            |constant: &Constant| constant.name() == name || (*constant == Constant::Return && name == RETURNS);
        let constant = || EnumSet::all().iter().find(is_named);
        statistic.map(Self::Statistic).or_else(|| constant().map(Self::Constant))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Statistic(statistic) => statistic.name(),
            Self::Constant(constant) => constant.name(),
        }
    }

    /// Whether this many numbers are one per token, rather than one or several per response.
    fn is_of_tokens(self, numbers: usize, responses: usize) -> bool {
        match self {
            Self::Constant(Constant::Reward | Constant::Weight) => false,
            Self::Constant(Constant::Advantage) => numbers != responses,
            _ => true,
        }
    }

    /// Makes the values a column of a side.
    pub(crate) fn place<'a>(self, side: &mut Side<'a>, values: &'a [f64]) {
        *match self {
            Self::Statistic(Statistic::LogProb) => &mut side.log_prob,
            Self::Statistic(Statistic::ReferenceKl) => &mut side.reference_kl,
            Self::Statistic(Statistic::Entropy) => &mut side.entropy,
            Self::Statistic(Statistic::Value) => &mut side.value,
            Self::Statistic(Statistic::LogSumSquareProb) => &mut side.log_sum_square_prob,
            Self::Statistic(Statistic::TeacherDivergence) => &mut side.teacher_divergence,
            Self::Statistic(Statistic::Score) => &mut side.score,
            Self::Constant(Constant::ReferenceLogProb) => &mut side.reference_log_prob,
            Self::Constant(Constant::BehaviourLogProb) => &mut side.behaviour_log_prob,
            Self::Constant(Constant::RolloutLogProb) => &mut side.rollout_log_prob,
            Self::Constant(Constant::BehaviourValue) => &mut side.behaviour_value,
            Self::Constant(Constant::Advantage) => &mut side.advantage,
            Self::Constant(Constant::Return) => &mut side.returns,
            Self::Constant(Constant::TeacherLogProb) => &mut side.teacher_log_prob,
            Self::Constant(Constant::Weight) => &mut side.weight,
            Self::Constant(Constant::Reward) => &mut side.reward,
        } = values;
    }
}

/// The cotangents of a statistic.
fn cotangents_of<'a>(cotangents: &Cotangents<'a>, statistic: Statistic) -> &'a [f64] {
    match statistic {
        Statistic::LogProb => cotangents.log_prob,
        Statistic::ReferenceKl => cotangents.reference_kl,
        Statistic::Entropy => cotangents.entropy,
        Statistic::Value => cotangents.value,
        Statistic::LogSumSquareProb => cotangents.log_sum_square_prob,
        Statistic::TeacherDivergence => cotangents.teacher_divergence,
        Statistic::Score => cotangents.score,
    }
}

/// The arrays of one side: columns by name, bounds and mask.
impl<'py> FromPyObject<'_, 'py> for Arrays<'py> {
    type Error = PyErr;

    fn extract(side: pyo3::Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        type Given<'py> = (Bound<'py, PyDict>, PyReadonlyArray1<'py, i64>, Option<PyReadonlyArray1<'py, bool>>);
        let (columns, bounds, mask): Given<'py> = side.extract()?;
        let (mut numbers, mut desirable, mut group) = (Vec::with_capacity(columns.len()), None, None);
        for (name, array) in columns {
            let text = name.cast::<PyString>()?.to_cow()?;
            match &*text {
                DESIRABLE => desirable = Some(array.extract()?),
                GROUP => group = Some(array.extract()?),
                other => {
                    let column = Column::find(other).ok_or_else(|| value_error(format_args!("{other}: no column")))?;
                    let array = match array.extract() {
                        Ok(single) => Array::Single(single),
                        Err(_) => Array::Double(array.extract().map_err(|_| {
                            type_error(format_args!(
                                "{other}: expected an array of one dimension in float32 or float64"
                            ))
                        })?),
                    };
                    numbers.push((column, array));
                }
            }
        }
        Ok(Self { numbers, desirable, group, bounds, mask })
    }
}

impl Arrays<'_> {
    /// The arrays as slices.
    ///
    /// # Errors
    ///
    /// `ValueError` for an array with gaps.
    pub(crate) fn borrow(&self) -> PyResult<Slices<'_>> {
        let mut numbers = Vec::with_capacity(self.numbers.len());
        for (column, array) in &self.numbers {
            let values = match array {
                Array::Single(array) => Numbers::Single(array.as_slice().map_err(value_error)?),
                Array::Double(array) => Numbers::Double(array.as_slice().map_err(value_error)?),
            };
            numbers.push((*column, values));
        }
        Ok(Slices {
            numbers,
            desirable: self
                .desirable
                .as_ref()
                .map_or(Ok(&[] as &[bool]), |array| array.as_slice())
                .map_err(value_error)?,
            group: self.group.as_ref().map_or(Ok(&[] as &[i64]), |array| array.as_slice()).map_err(value_error)?,
            bounds: self.bounds.as_slice().map_err(value_error)?,
            mask: self.mask.as_ref().map(|array| array.as_slice()).transpose().map_err(value_error)?,
        })
    }
}

impl Numbers<'_> {
    fn len(self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// Appends the numbers at these places.
    fn append(self, places: Range<usize>, to: &mut Vec<f64>) {
        match self {
            Self::Single(values) => to.extend(values[places].iter().map(|&value| f64::from(value))),
            Self::Double(values) => to.extend_from_slice(&values[places]),
        }
    }
}

impl Slices<'_> {
    /// Selects the tokens that the mask does not exclude.
    ///
    /// # Errors
    ///
    /// A sentence for bounds or a mask that do not fit the columns.
    pub(crate) fn select(&self, side: &'static str) -> Result<Selection, String> {
        let (bounds, mask) = (self.bounds, self.mask);
        let mut before = 0;
        for (place, &bound) in bounds.iter().enumerate() {
            if bound < before || (place == 0 && bound != 0) {
                return Err(format!(
                    "{side}cumulative_lengths: expected ascending numbers from 0, got {bound} at place {place}"
                ));
            }
            before = bound;
        }
        let places = usize::try_from(before).map_err(|error| error.to_string())?;
        let responses = bounds.len().saturating_sub(1);
        for (column, numbers) in &self.numbers {
            let given = numbers.len();
            if column.is_of_tokens(given, responses) && given != places {
                return Err(BatchError::Length { side, column: column.name(), expected: places, given }.to_string());
            }
        }
        if let Some(mask) = mask
            && mask.len() != places
        {
            return Err(format!("{side}mask: expected {places} values, one a token, got {}", mask.len()));
        }
        let mut selection = Selection { lengths: Vec::with_capacity(responses), runs: Vec::new(), places };
        for response in bounds.windows(2) {
            // They ascend from 0 to a length of memory.
            let (mut place, end) = (response[0] as usize, response[1] as usize);
            let Some(mask) = mask else {
                selection.lengths.push(end - place);
                continue;
            };
            let mut tokens = 0;
            while place < end {
                place += run(&mask[place..end], false);
                let length = run(&mask[place..end], true);
                if length > 0 {
                    selection.runs.push(place..place + length);
                }
                tokens += length;
                place += length;
            }
            selection.lengths.push(tokens);
        }
        if mask.is_none() {
            selection.runs.push(0..places);
        }
        Ok(selection)
    }
}

/// Number of equal values at the beginning of a mask.
fn run(mask: &[bool], value: bool) -> usize {
    const CHUNK: usize = 32;
    let equal = |chunk: &&[bool]| chunk.iter().fold(true, |equal, &other| equal & (other == value));
    let whole = mask.chunks_exact(CHUNK).take_while(equal).count() * CHUNK;
    let rest = &mask[whole..];
    whole + rest.iter().position(|&other| other != value).unwrap_or(rest.len())
}

impl Selection {
    /// Fills a buffer with the selected numbers of a column.
    pub(crate) fn gather(&self, column: Column, numbers: Numbers<'_>, to: &mut Vec<f64>) {
        to.clear();
        if column.is_of_tokens(numbers.len(), self.lengths.len()) {
            self.runs.iter().for_each(|run| numbers.append(run.clone(), to));
        } else {
            numbers.append(0..numbers.len(), to);
        }
    }

    /// Number of selected tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The cotangents of a statistic at the places of its column; 0 at places that the mask excludes.
    pub(crate) fn scatter(&self, cotangents: &[f64], like: Numbers<'_>) -> Cotangent {
        fn spread<T: Copy + Default>(selection: &Selection, values: &[f64], narrow: impl Fn(f64) -> T) -> Vec<T> {
            let mut spread = vec![T::default(); selection.places];
            let mut rest = values;
            for run in &selection.runs {
                let (own, behind) = rest.split_at(run.len().min(rest.len()));
                spread[run.clone()].iter_mut().zip(own).for_each(|(slot, &value)| *slot = narrow(value));
                rest = behind;
            }
            spread
        }
        match like {
            Numbers::Single(_) => Cotangent::Single(spread(self, cotangents, |value| value as f32)),
            Numbers::Double(_) => Cotangent::Double(spread(self, cotangents, |value| value)),
        }
    }

    /// The cotangents of each statistic of a side, whose first token has this index.
    pub(crate) fn cotangents(
        &self,
        numbers: &[(Column, Numbers<'_>)],
        all: &Cotangents<'_>,
        first: usize,
    ) -> Vec<(&'static str, Cotangent)> {
        let of = |&(column, numbers): &(Column, Numbers<'_>)| match column {
            Column::Statistic(statistic) => {
                let own = cotangents_of(all, statistic).get(first..first + self.tokens())?;
                Some((statistic.name(), self.scatter(own, numbers)))
            }
            Column::Constant(_) => None,
        };
        numbers.iter().filter_map(of).collect()
    }
}

impl Cotangent {
    /// The cotangents as an array, without a copy.
    pub(crate) fn into_array(self, py: Python<'_>) -> Bound<'_, PyAny> {
        match self {
            Self::Single(values) => PyArray1::from_vec(py, values).into_any(),
            Self::Double(values) => PyArray1::from_vec(py, values).into_any(),
        }
    }
}
