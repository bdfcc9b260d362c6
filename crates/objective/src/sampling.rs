//! How an objective that learns from the policy's own responses samples them.

use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, UNIT};

/// Responses a prompt, as a method declares them with its own default (`ppo` under the name `episodes`).
///
/// One response has no other to be compared with, so there are at least two:
///
/// ```
/// assert_eq!(objective::sampling::samples(8).allowed(), "a whole number, 2 <= samples <= 65536");
/// ```
pub const fn samples(default: usize) -> Parameter {
    Parameter {
        name: "samples",
        kind: Kind::Count { default, least: 2, most: 65_536 },
        purpose: "responses sampled for each prompt",
    }
}

/// Steps a sample, as a method declares them with its own default.
///
/// ```
/// let epochs = objective::sampling::epochs(4);
/// assert_eq!((epochs.name, epochs.default()), ("epochs", 4.0.into()));
/// ```
pub const fn epochs(default: usize) -> Parameter {
    Parameter {
        name: "epochs",
        kind: Kind::Count { default, least: 1, most: 1_000 },
        purpose: "optimizer steps on the same responses before new ones are sampled",
    }
}

/// λ of generalised advantage estimation.
pub const GAE_LAMBDA: Parameter = Parameter {
    name: "gae_lambda",
    kind: Kind::Number { default: 0.95, range: UNIT },
    purpose: "how far rewards reach back into advantages: 0 is one step, 1 the whole response",
};

/// How responses are sampled from the policy in training.
///
/// ```
/// use objective::{Parameters, Source, registry};
///
/// let ppo = registry::build("ppo", &[("episodes".to_owned(), 32.0.into())].into())?;
/// let Source::Sampled(sampling) = ppo.requirements().source else { panic!("it samples") };
/// assert_eq!((sampling.samples, sampling.epochs, sampling.gae_lambda), (32, 4, 0.95));
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Responses for each prompt.
    pub samples: usize,
    /// Optimizer steps on the same responses.
    pub epochs: usize,
    /// λ of generalised advantage estimation, where advantages are asked for.
    pub gae_lambda: f64,
}

/// What is read is what is written:
///
/// ```
/// use objective::parameter::{Parameters, Reader};
/// use objective::sampling::{Sampling, epochs, samples};
///
/// let declared = [samples(8), epochs(1)];
/// let given = Parameters::from([("epochs".to_owned(), 3.0.into()), ("samples".to_owned(), 4.0.into())]);
/// let sampling = Sampling::read(&declared, &Reader::new("example", &declared, &given)?)?;
/// assert_eq!(sampling.parameters(&declared), given);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Sampling {
    /// The sampling that the declared parameters describe; those not declared have no effect.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::sampling::{Sampling, samples};
    ///
    /// let (declared, given) = ([samples(8)], Parameters::new());
    /// let sampling = Sampling::read(&declared, &Reader::new("example", &declared, &given)?)?;
    /// assert_eq!(sampling, Sampling { samples: 8, epochs: 1, gae_lambda: 1.0 });
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn read(declared: &[Parameter], reader: &Reader<'_>) -> Result<Self, ParameterError> {
        let find = |name: &str| declared.iter().find(|parameter| parameter.name == name);
        let count = |name: &str| find(name).map_or(Ok(1), |parameter| reader.count(parameter));
        Ok(Self {
            samples: find("episodes").map_or_else(|| count("samples"), |parameter| reader.count(parameter))?,
            epochs: count("epochs")?,
            gae_lambda: find(GAE_LAMBDA.name).map_or(Ok(1.0), |parameter| reader.number(parameter))?,
        })
    }

    /// The parameters in force, of those declared.
    ///
    /// ```
    /// use objective::sampling::{Sampling, epochs};
    ///
    /// let sampling = Sampling { samples: 8, epochs: 2, gae_lambda: 1.0 };
    /// assert_eq!(sampling.parameters(&[epochs(1)]), [("epochs".to_owned(), 2.0.into())].into());
    /// ```
    pub fn parameters(&self, declared: &[Parameter]) -> Parameters {
        let mut parameters = Parameters::from([
            ("samples".to_owned(), (self.samples as f64).into()),
            ("episodes".to_owned(), (self.samples as f64).into()),
            ("epochs".to_owned(), (self.epochs as f64).into()),
            (GAE_LAMBDA.name.to_owned(), self.gae_lambda.into()),
        ]);
        parameters.retain(|name, _| declared.iter().any(|parameter| parameter.name == name));
        parameters
    }
}
