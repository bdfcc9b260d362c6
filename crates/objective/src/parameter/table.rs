//! The table of an objective's parameters: names, purposes, ranges, defaults, and accessors of the struct's fields.

use std::str::FromStr;

use strum::VariantNames;

use super::{Interval, Kind, Parameter, ParameterError, Parameters, Value};
use crate::Objective;
use crate::method::Method;

/// One parameter of a struct `T`, as [`objective!`](crate::objective!) declares it.
#[derive(Clone, Copy, Debug)]
pub struct Field<T> {
    /// Name, range, default and purpose.
    pub parameter: Parameter,
    /// Reads the value from the struct; `None` if a derived parameter is not set.
    pub get: fn(&T) -> Option<Value>,
    /// Writes a value into the struct.
    pub set: fn(&mut T, &'static str, &Parameter, &Value) -> Result<(), ParameterError>,
    /// Setting under which the parameter has no effect, if it applies.
    pub unused: fn(&T) -> Option<String>,
    /// Value of a derived parameter that is not set, if it has one.
    pub follows: fn(&T) -> Option<f64>,
}

/// A struct of parameters with its entry in the registry. [`objective!`](crate::objective!) implements the trait.
pub trait Registered<Built = Box<dyn Objective>>: Declared {
    /// Name, summary, source, parameters and constructor.
    const METHOD: Method<Built>;
}

/// A struct of parameters with a table that declares them. [`objective!`](crate::objective!) implements the trait.
pub trait Declared: Clone + Default + 'static {
    /// The table, with the values of `base` as defaults.
    fn fields(base: &Self) -> Vec<Field<Self>>;
}

/// The declared parameters, with the values of `base` as defaults.
pub fn declared<T: Declared>(base: &T) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for field in T::fields(base) {
        parameters.push(field.parameter);
    }
    parameters
}

/// Applies the given values to `base`.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is unknown, out of range or without effect under the others.
pub fn read<T: Declared>(owner: &'static str, base: &T, given: &Parameters) -> Result<T, ParameterError> {
    refuse_unknown(owner, &declared(base), given)?;
    let fields = T::fields(base);
    let mut own = base.clone();
    for field in &fields {
        if let Some(value) = given.get(field.parameter.name) {
            (field.set)(&mut own, owner, &field.parameter, value)?;
        }
    }
    for field in &fields {
        if let Some(value) = given.get(field.parameter.name) {
            refuse_unused(owner, &field.parameter, (field.unused)(&own), value)?;
        }
    }
    Ok(own)
}

/// Checks a struct whose public fields were set: each is in its range, and none that differs from `base` is without
/// effect.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is out of range or without effect under the others.
pub fn check<T: Declared>(owner: &'static str, base: &T, own: &T) -> Result<(), ParameterError> {
    for field in T::fields(base) {
        let Some(value) = (field.get)(own) else { continue };
        (field.set)(&mut own.clone(), owner, &field.parameter, &value)?;
        if (field.get)(base).as_ref() != Some(&value) {
            refuse_unused(owner, &field.parameter, (field.unused)(own), &value)?;
        }
    }
    Ok(())
}

/// All parameters that have an effect, with their values, including derived ones.
pub fn in_force<T: Declared>(own: &T) -> Parameters {
    let mut values = Parameters::new();
    for field in T::fields(own) {
        if (field.unused)(own).is_some() {
            continue;
        }
        let value = match (field.get)(own) {
            None => (field.follows)(own).map(Value::Number),
            set => set,
        };
        if let Some(value) = value {
            values.insert(field.parameter.name.to_owned(), value);
        }
    }
    values
}

/// Builds an objective from its defaults and the given values, for the registry.
///
/// # Errors
///
/// As [`read`].
pub fn build<T: Registered + Objective>(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    Ok(Box::new(read(T::METHOD.name, &T::default(), given)?))
}

// What is generic over objectives above is compiled once for each: it has plain loops, and calls these.

fn refuse_unknown(owner: &'static str, declared: &[Parameter], given: &Parameters) -> Result<(), ParameterError> {
    let is_unknown = |name: &&String| declared.iter().all(|parameter| parameter.name != name.as_str());
    let Some(name) = given.keys().find(is_unknown) else { return Ok(()) };
    let names: Vec<_> = declared.iter().map(|parameter| parameter.name).collect();
    let allowed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(ParameterError::Unknown { owner, name: name.clone(), allowed })
}

fn refuse_unused(
    owner: &'static str,
    parameter: &Parameter,
    unused: Option<String>,
    given: &Value,
) -> Result<(), ParameterError> {
    let Some(because) = unused else { return Ok(()) };
    Err(ParameterError::Unused { owner, name: parameter.name, because, given: given.to_string() })
}

/// A field type that a parameter may have.
pub trait Typed: Sized {
    /// Restriction of the values, written in brackets after the type in [`objective!`](crate::objective!).
    type Range;

    /// Kind of the parameter.
    fn kind(&self, range: Self::Range) -> Kind;

    /// Value of the field, if it is set.
    fn value(&self) -> Option<Value>;

    /// The value, if the parameter permits it.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for another kind of value or one out of range.
    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError>;
}

impl Typed for f64 {
    type Range = Interval;

    fn kind(&self, range: Interval) -> Kind {
        Kind::Number { default: *self, range }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Number(*self))
    }

    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError> {
        match value {
            Value::Number(value) => parameter.check(owner, *value),
            other => Err(parameter.invalid(owner, other)),
        }
    }
}

/// A number that is derived from another parameter unless it is set. The text describes how it is derived.
impl Typed for Option<f64> {
    type Range = (Interval, &'static str);

    fn kind(&self, (range, default): Self::Range) -> Kind {
        match *self {
            None => Kind::Derived { default, range },
            Some(default) => Kind::Number { default, range },
        }
    }

    fn value(&self) -> Option<Value> {
        self.map(Value::Number)
    }

    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError> {
        f64::read(owner, parameter, value).map(Some)
    }
}

/// A whole number between two bounds.
impl Typed for usize {
    type Range = (usize, usize);

    fn kind(&self, (least, most): Self::Range) -> Kind {
        Kind::Count { default: *self, least, most }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Number(*self as f64))
    }

    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError> {
        match (value, parameter.kind) {
            (Value::Number(value), Kind::Count { least, most, .. })
                if value.fract() == 0.0 && (least as f64..=most as f64).contains(value) =>
            {
                Ok(*value as usize)
            }
            (other, _) => Err(parameter.invalid(owner, other)),
        }
    }
}

impl Typed for bool {
    type Range = ();

    fn kind(&self, (): ()) -> Kind {
        Kind::Switch { default: *self }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Switch(*self))
    }

    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError> {
        match value {
            Value::Switch(value) => Ok(*value),
            other => Err(parameter.invalid(owner, other)),
        }
    }
}

/// An enum whose variants have names, by `strum`'s `EnumString`, `IntoStaticStr` and `VariantNames`.
pub trait Choice: Copy + FromStr + Into<&'static str> + VariantNames {}

/// Implements the kind of a parameter for enums.
macro_rules! choices {
    ($($name:ty),*) => {$(
        #[automatically_derived]
        impl $crate::parameter::Choice for $name {}
    )*};
}
pub(crate) use choices;

impl<E: Choice> Typed for E {
    type Range = ();

    fn kind(&self, (): ()) -> Kind {
        Kind::Choice { default: (*self).into(), options: E::VARIANTS }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::from((*self).into()))
    }

    fn read(owner: &'static str, parameter: &Parameter, value: &Value) -> Result<Self, ParameterError> {
        let name = match value {
            Value::Text(name) => name.clone(),
            // The names of variants may be numbers.
            other => other.to_string(),
        };
        name.parse().map_err(|_| parameter.invalid(owner, value))
    }
}

/// Converts a doc comment to the purpose of a parameter: removes the space before it and the full stop after it.
pub const fn purpose(doc: &'static str) -> &'static str {
    match doc.trim_ascii().as_bytes() {
        [rest @ .., b'.'] => match std::str::from_utf8(rest) {
            Ok(text) => text,
            Err(_) => doc,
        },
        _ => doc.trim_ascii(),
    }
}

/// Declares a struct of parameters and its table: everything about a parameter is in this one place.
///
/// ```
/// use objective::parameter::{SCALE, UNIT, in_force, read};
///
/// objective::objective! {
///     /// The documentation of the type.
///     #[derive(Clone, Debug, PartialEq)]
///     pub struct Example {
///         /// Scale of the reward, per nat.
///         beta: f64 [SCALE] = 0.1,
///         /// Number of samples.
///         samples: usize [1, 64] = 8,
///         /// Margin that a pair should have.
///         margin: Option<f64> [UNIT, "0.8 beta"] = None => follows |own| Some(0.8 * own.beta),
///         /// Whether to sort.
///         sort: bool = false => unused |own| (own.samples == 1).then(|| "samples = 1".to_owned()),
///     }
/// }
///
/// let given = [("beta".to_owned(), 0.5.into())].into();
/// let example = read("example", &Example::default(), &given)?;
/// assert_eq!(example, Example { beta: 0.5, ..Example::default() });
/// assert_eq!(in_force(&example)["margin"], 0.4.into());
/// Ok::<(), objective::ParameterError>(())
/// ```
///
/// - Fields are public. A field's doc comment, less its full stop, is the parameter's purpose in help and schema.
/// - `f64` has an [`Interval`] in brackets; `usize` its bounds; `bool` and enums that implement [`Choice`] have
///   nothing; `Option<f64>` has an interval and the text that help shows for its default.
/// - `=> unused |own| ..` answers, as `"name = value"`, the setting under which the parameter has no effect. There it
///   must not be set, and [`in_force`] does not list it.
/// - `=> follows |own| ..` answers the value of an `Option<f64>` that is not set (`None`: no such value).
/// - A field that many objectives share is its name and a semicolon (`weighting;`); it is written out in the macro.
/// - Documentation comes before derives, and there are no other attributes; [`Registered`] keeps it for manuals.
/// - The struct gets `Default` and [`Declared`]. `pub struct Dpo = "dpo", "summary", "source" { .. }` gets
///   [`Registered`] too; it implements [`Objective`](crate::Objective) with `in_force(self)` as its parameters. `pub
///   struct Sgd = "sgd", "summary", "source", Optimizer of "optimizer" { .. }` is no objective but a variant of the
///   enum `Optimizer`, and errors name its parameters as those of `optimizer`. A preset is another base:
///   `read("preset", &Example { beta: 2.0, ..Example::default() }, given)`, with `declared(&base)` as its parameters.
#[macro_export]
macro_rules! objective {
    (
        $(#[doc = $doc:literal])* $(#[derive($($derive:tt)*)])* $vis:vis struct $type:ident
        $(= $name:literal, $summary:literal, $source:literal $(, $built:ident of $owner:literal)?)? { $($fields:tt)* }
    ) => {
        $crate::objective!(@ [$(#[doc = $doc])* $(#[derive($($derive)*)])* $vis struct $type] [] $($fields)*);
        $crate::objective!(@registered [$($doc)*] $type $($name $summary $source $($built $owner)?)?);
    };
    (@registered $docs:tt $type:ident) => {};
    (@registered $docs:tt $type:ident $name:literal $summary:literal $source:literal) => {
        $crate::objective!(@listed $docs $type $name $summary $source
            [std::boxed::Box<dyn $crate::Objective>] [$crate::parameter::build::<$type>]);

        impl $type {
            /// An evaluator of this objective.
            ///
            /// # Errors
            ///
            /// [`ParameterError`](crate::ParameterError) for a parameter that is out of range or without effect
            /// under the others.
            pub fn evaluator(self) -> Result<$crate::Evaluator<Self>, $crate::ParameterError> {
                $crate::Evaluator::new(self)
            }
        }
    };
    (@registered
        $docs:tt $type:ident $name:literal $summary:literal $source:literal $built:ident $owner:literal
    ) => {
        $crate::objective!(@listed $docs $type $name $summary $source
            [$built] [|given| $crate::parameter::read($owner, &<$type>::default(), given).map($built::$type)]);
    };
    (@listed
        [$($doc:literal)*] $type:ident $name:literal $summary:literal $source:literal [$built:ty] [$build:expr]
    ) => {
        #[automatically_derived]
        impl $crate::parameter::Registered<$built> for $type {
            const METHOD: $crate::Method<$built> = $crate::Method {
                name: $name,
                summary: $summary,
                documentation: concat!($($doc, "\n"),*),
                source: $source,
                parameters: || $crate::parameter::declared(&<$type>::default()),
                build: $build,
            };
        }
    };
    (@ $head:tt [$($done:tt)*] beta; $($rest:tt)*) => {
        $crate::objective!(@ $head [$($done)*]
            /// Scale of the implicit reward beta (log pi - log pi_ref), per nat.
            beta: f64 [$crate::parameter::SCALE] = 0.1,
            $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] label_smoothing; $($rest:tt)*) => {
        $crate::objective!(@ $head [$($done)*]
            /// Probability that a preference is the wrong way round.
            label_smoothing: f64 [$crate::parameter::interval(0.0, 0.5)] = 0.0,
            $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] divergence; $($rest:tt)*) => {
        $crate::objective!(@ $head [$($done)*]
            /// Divergence that keeps the policy near its reference.
            divergence: $crate::Divergence = $crate::Divergence::ReverseKl,
            /// Order of the alpha divergence: 0 is forward_kl, 1 is reverse_kl.
            divergence_alpha: f64 [$crate::parameter::UNIT] = 0.5 => unused |own| own.divergence.without_order(),
            $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] tail_weight; $($rest:tt)*) => {
        $crate::objective!(@ $head [$($done)*]
            /// Weight of tokens beyond the shorter response's length (length-desensitised DPO, arXiv 2409.06411).
            tail_weight: f64 [$crate::parameter::UNIT] = 1.0,
            $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] weighting; $($rest:tt)*) => {
        $crate::objective!(@ $head [$($done)*]
            /// Whether a pair is weighted by how likely the policy is to sample it (WPO, arXiv 2406.11827).
            weighting: $crate::PairWeighting = $crate::PairWeighting::None,
            $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] label_weights; $($rest:tt)*) => {
        $crate::objective!(@ $head [$($done)*]
            /// Weight of a desirable response.
            desirable_weight: f64 [$crate::parameter::NON_NEGATIVE] = 1.0,
            /// Weight of an undesirable response.
            undesirable_weight: f64 [$crate::parameter::NON_NEGATIVE] = 1.0,
            $($rest)*);
    };
    (@ $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $field:ident: $kind:ty $([$($range:expr),*])? = $default:expr
        $(=> unused $unused:expr)? $(=> follows $follows:expr)?, $($rest:tt)*
    ) => {
        $crate::objective!(@ $head
            [$($done)* { [$($doc)*] $field [$kind] [$($($range),*)?] [$default] [$($unused)?] [$($follows)?] }]
            $($rest)*);
    };
    (@ [$(#[$meta:meta])* $vis:vis struct $type:ident]
        [$({ [$($doc:literal)*] $field:ident [$kind:ty] [$($range:expr),*] [$default:expr]
            [$($unused:expr)?] [$($follows:expr)?] })*]
    ) => {
        $(#[$meta])*
        $vis struct $type {
            $($(#[doc = $doc])* pub $field: $kind,)*
        }

        #[automatically_derived]
        impl Default for $type {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        #[automatically_derived]
        impl $crate::parameter::Declared for $type {
            fn fields(base: &Self) -> Vec<$crate::parameter::Field<Self>> {
                vec![$($crate::parameter::Field {
                    parameter: $crate::Parameter {
                        name: stringify!($field),
                        kind: $crate::parameter::Typed::kind(&base.$field, ($($range),*)),
                        purpose: const { $crate::parameter::purpose(concat!($($doc),*)) },
                    },
                    get: |own| $crate::parameter::Typed::value(&own.$field),
                    set: |own, owner, parameter, value| {
                        own.$field = $crate::parameter::Typed::read(owner, parameter, value)?;
                        Ok(())
                    },
                    unused: $crate::objective!(@or $($unused)?),
                    follows: $crate::objective!(@or $($follows)?),
                }),*]
            }
        }
    };
    (@or) => { |_| None };
    (@or $rule:expr) => { $rule };
}

/// Implements the parameters and their check within `impl Objective`, from the table that
/// [`objective!`](crate::objective!) makes.
#[macro_export]
macro_rules! declared_parameters {
    () => {
        fn parameters(&self) -> $crate::Parameters {
            $crate::parameter::in_force(self)
        }

        fn check(&self) -> Result<(), $crate::ParameterError> {
            $crate::parameter::check(<Self as $crate::parameter::Registered>::METHOD.name, &Self::default(), self)
        }
    };
}
