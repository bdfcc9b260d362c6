//! Text that goes on: responses to prompts, a token at a time.
//!
//! Prompts are taken in batches, those of nearly the same length together. A batch goes through the model once; then each of its
//! rows is asked for one token after the other, and what earlier tokens were seen as is kept ([`cache`]). A row that is done
//! leaves its batch.
//!
//! Each prompt draws from its own stream of the seed, which its index in the whole list chooses, so its response is the same
//! whatever runs beside it, up to how the engine rounds products of matrices of another shape.

pub mod cache;
pub mod sampling;

use std::cmp::Reverse;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use strum::IntoStaticStr;
use tch::{Tensor, no_grad};

use crate::config::ModelConfig;
use crate::error::LmError;
use crate::head::Head;
use crate::model::Transformer;
use cache::Cache;
use sampling::Sampling;

/// How responses are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The most tokens in a response, at least 1. One whose prompt leaves fewer of the model's positions has no more than those.
    pub max_tokens: usize,
    /// What logits are divided by, at least 0. With 0 the most probable token is taken, the first of several.
    pub temperature: f64,
    /// How many of the most probable tokens may be drawn, at least 1; none means all. None where the temperature is 0.
    pub top_k: Option<usize>,
    /// The probability that the most probable of the tokens left by `top_k` have together if no other is drawn, in (0, 1]; none
    /// means 1. None where the temperature is 0.
    pub top_p: Option<f64>,
    /// Whose streams the tokens are drawn from.
    pub seed: u64,
    /// Tokens that end a response, of which they are the last.
    pub stop: Vec<u32>,
    /// The most prompts that are answered at once, at least 1.
    pub batch: usize,
}

/// Why a response is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Finish {
    /// Its last token is one of those that end a response.
    Stop,
    /// It has as many tokens as it may.
    Length,
}

/// How a prompt goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// Its tokens, the one that ended it included. There is at least one.
    pub response: Vec<u32>,
    /// log π of each of them, in nats, whatever it was drawn from: without temperature, `top_k` and `top_p`.
    pub log_prob: Vec<f64>,
    /// Why no token follows.
    pub finish: Finish,
}

impl Settings {
    fn validate(&self, config: &ModelConfig) -> Result<(), LmError> {
        let refuse =
            |field, allowed: &str, given: String| Err(LmError::Setting { field, allowed: allowed.to_owned(), given });
        let Self { max_tokens, temperature, top_k, top_p, seed: _, stop, batch } = self;
        if *max_tokens == 0 {
            return refuse("max_tokens", "at least 1", max_tokens.to_string());
        }
        if !(temperature.is_finite() && *temperature >= 0.0) {
            return refuse("temperature", "a number of at least 0", temperature.to_string());
        }
        if *top_k == Some(0) {
            return refuse("top_k", "at least 1", "0".to_owned());
        }
        if let Some(top_p) = top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            return refuse("top_p", "greater than 0, at most 1", top_p.to_string());
        }
        if *temperature == 0.0 {
            let unused = "nothing where temperature is 0, as it would be without effect";
            if let Some(top_k) = top_k {
                return refuse("top_k", unused, top_k.to_string());
            }
            if let Some(top_p) = top_p {
                return refuse("top_p", unused, top_p.to_string());
            }
        }
        if let Some(token) = stop.iter().find(|token| **token as usize >= config.vocabulary) {
            return refuse("stop", &format!("tokens less than {}", config.vocabulary), token.to_string());
        }
        if *batch == 0 {
            return refuse("batch", "at least 1", batch.to_string());
        }
        Ok(())
    }

    /// How tokens are drawn, unless the most probable one is taken.
    fn sampling(&self) -> Option<Sampling> {
        let Self { temperature, top_k, top_p, .. } = *self;
        (temperature > 0.0).then_some(Sampling { temperature, top_k, top_p })
    }
}

fn validate_prompt(index: usize, prompt: &[u32], config: &ModelConfig) -> Result<(), LmError> {
    let refuse =
        |allowed: String, given: String| Err(LmError::Record { field: format!("prompts[{index}]"), allowed, given });
    // At least one position is left for the response.
    if prompt.is_empty() || prompt.len() >= config.positions {
        return refuse(format!("1 to {} tokens", config.positions.saturating_sub(1)), prompt.len().to_string());
    }
    match prompt.iter().find(|token| **token as usize >= config.vocabulary) {
        Some(token) => refuse(format!("tokens less than {}", config.vocabulary), token.to_string()),
        None => Ok(()),
    }
}

/// Lets every prompt go on. Answers are in the order of the prompts.
///
/// # Errors
///
/// [`LmError::Setting`]; [`LmError::Record`] for a prompt that is empty, fills all of the model's positions or has tokens that
/// the model does not know; [`LmError::Logits`] for a model whose numbers overflow; [`LmError::Engine`].
///
/// # Examples
///
/// ```
/// use lm::config::Dtype;
/// use lm::generate::{Settings, generate};
/// use lm::model::Transformer;
///
/// let folder = "../../tests/oracles/checkpoints/llama".as_ref();
/// let model = Transformer::read(folder, Dtype::Float32, tch::Device::Cpu)?;
/// let settings =
///     Settings { max_tokens: 4, temperature: 0.0, top_k: None, top_p: None, seed: 0, stop: vec![2], batch: 8 };
/// let found = generate(&model, &[vec![1, 30, 31], vec![1, 40]], &settings)?;
/// assert!(found.iter().all(|found| (1..=4).contains(&found.response.len())));
/// # Ok::<(), lm::error::LmError>(())
/// ```
pub fn generate(
    model: &Transformer,
    prompts: &[impl AsRef<[u32]>],
    settings: &Settings,
) -> Result<Vec<Continuation>, LmError> {
    settings.validate(model.config())?;
    let prompts: Vec<&[u32]> = prompts.iter().map(AsRef::as_ref).collect();
    for (index, prompt) in prompts.iter().enumerate() {
        validate_prompt(index, prompt, model.config())?;
    }
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    // The longest come first, so that a lack of memory shows at once.
    order.sort_by_key(|index| Reverse(prompts[*index].len()));
    let mut done = Vec::with_capacity(prompts.len());
    for indices in order.chunks(settings.batch) {
        let rows = indices.iter().map(|index| Row::new(*index, prompts[*index], model.config(), settings)).collect();
        no_grad(|| answer(model, rows, settings, &mut done))?;
    }
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, continuation)| continuation).collect())
}

/// A prompt that goes on.
struct Row<'a> {
    /// Which of all prompts it is.
    index: usize,
    prompt: &'a [u32],
    /// How many tokens its response may have.
    room: usize,
    rng: ChaCha8Rng,
    response: Vec<u32>,
    log_prob: Vec<f64>,
}

impl<'a> Row<'a> {
    fn new(index: usize, prompt: &'a [u32], config: &ModelConfig, settings: &Settings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream(index as u64);
        let room = settings.max_tokens.min(config.positions - prompt.len());
        Self { index, prompt, room, rng, response: Vec::new(), log_prob: Vec::new() }
    }

    fn push(&mut self, token: u32, log_prob: f64) -> Result<(), LmError> {
        if log_prob.is_nan() {
            return Err(LmError::Logits { prompt: self.index });
        }
        self.response.push(token);
        self.log_prob.push(log_prob);
        Ok(())
    }

    fn finish(&self, stop: &[u32]) -> Option<Finish> {
        if self.response.last().is_some_and(|last| stop.contains(last)) {
            return Some(Finish::Stop);
        }
        (self.response.len() >= self.room).then_some(Finish::Length)
    }
}

/// Lets the prompts of a batch go on until the last of them is done.
fn answer(
    model: &Transformer,
    mut rows: Vec<Row<'_>>,
    settings: &Settings,
    done: &mut Vec<(usize, Continuation)>,
) -> Result<(), LmError> {
    let prompts: Vec<_> = rows.iter().map(|row| row.prompt).collect();
    let (mut cache, mut hidden) = Cache::read(model, &prompts)?;
    loop {
        choose(model, &hidden, &mut rows, settings.sampling())?;
        let mut left = Vec::with_capacity(rows.len());
        let mut kept = Vec::with_capacity(rows.len());
        for (place, row) in rows.into_iter().enumerate() {
            match row.finish(&settings.stop) {
                Some(finish) => {
                    let Row { index, response, log_prob, .. } = row;
                    done.push((index, Continuation { response, log_prob, finish }));
                }
                None => {
                    left.push(row);
                    kept.push(place);
                }
            }
        }
        rows = left;
        if rows.is_empty() {
            return Ok(());
        }
        cache.keep(&kept)?;
        let tokens: Vec<_> = rows.iter().filter_map(|row| row.response.last().copied()).collect();
        hidden = cache.go_on(model, &tokens)?;
    }
}

/// Adds a token to each row, from the hidden states of shape [rows, hidden_size] of those before.
fn choose(
    model: &Transformer,
    hidden: &Tensor,
    rows: &mut [Row<'_>],
    sampling: Option<Sampling>,
) -> Result<(), LmError> {
    let head = Head { hidden, weights: model.head(), kept: None };
    match sampling {
        None => {
            let chosen = head.most_probable()?;
            rows.iter_mut().zip(chosen).try_for_each(|(row, (token, log_prob))| row.push(token, log_prob))
        }
        Some(sampling) => head.read_logits(|first, logits| {
            let rows = rows[first..].par_iter_mut().zip(logits.par_chunks(model.config().vocabulary));
            rows.try_for_each(|(row, logits)| {
                let (token, log_prob) =
                    sampling.draw(logits, &mut row.rng).ok_or(LmError::Logits { prompt: row.index })?;
                row.push(token, log_prob)
            })
        }),
    }
}
