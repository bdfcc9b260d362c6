//! Generation of text: responses to prompts, token by token.
//!
//! Prompts are generated together ([`super::schedule`]): where one finishes, another begins. Each token goes through
//! the model once, and a common prefix of several prompts once for all of them.
//!
//! The index of a prompt in the whole list selects its own stream of the seed, so its response does not depend on the
//! prompts beside it, except for the rounding of matrix products of different shapes.

use std::cmp::Reverse;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;
use strum::IntoStaticStr;

use super::sampling::Sampling;
use super::schedule::{Engine, Report, Room, Task};
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::generation_config::SamplingParameters;
use crate::error::{LmError, refuse, refuse_setting};
use crate::transformer::model::Transformer;

/// Number of prompt tokens that go through the model in one step.
pub const STEP: usize = 1024;

/// Size of a group of prompts, in multiples of the batch size. The rounding of matrix products depends on what is
/// generated together, so a resumed list forms the same groups and thus gets the same answers.
const GROUP: usize = 4;

/// Settings of generation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenerationSettings {
    /// Maximum number of tokens of a response, at least 1. The model's positions after the prompt are another limit.
    pub max_tokens: usize,
    /// Divisor of the logits, at least 0. With 0 the most probable token is taken, and the first such token on ties.
    pub temperature: f64,
    /// Number of most probable tokens to sample from, at least 1; `None` means all, and is required at temperature 0.
    pub top_k: Option<usize>,
    /// Top-p: samples from the smallest set of most probable tokens left by `top_k` whose total probability reaches
    /// this, in (0, 1]; `None` means 1, and is required at temperature 0.
    pub top_p: Option<f64>,
    /// Minimum probability of a sampled token, as a fraction of the greatest probability, in [0, 1]; `None` means 0,
    /// and is required at temperature 0.
    pub min_p: Option<f64>,
    /// Repetition penalty, above 0, for tokens that already occur in the prompt or the continuation: positive logits
    /// are divided by it, negative ones are multiplied; `None` means 1.
    pub repetition_penalty: Option<f64>,
    /// Random seed for sampling; each prompt has its own stream.
    pub seed: u64,
    /// Tokens that end a response, and are its last token.
    pub stop: Vec<u32>,
    /// Maximum number of prompts that are generated at the same time, at least 1.
    pub batch: usize,
}

/// Reason why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Finish {
    /// The response ends with a stop token.
    Stop,
    /// The response reached the maximum number of tokens.
    Length,
}

/// Generated response to a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// Tokens of the response, including the stop token. There is at least one.
    pub response: Vec<u32>,
    /// log π of each token, nats, of the model's own distribution: without temperature, `top_k` and `top_p`.
    pub log_prob: Vec<f64>,
    /// Reason why the response ended.
    pub finish: Finish,
}

/// A token with its log-probability given the tokens before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Id of the token.
    pub token: u32,
    /// log π of the token, nats: without temperature, `top_k` and `top_p`.
    pub log_prob: f64,
    /// The most probable tokens at this position with log π of each, nats, in decreasing order.
    pub top: Vec<(u32, f64)>,
}

impl Scored {
    /// Copy with at most this many of the most probable tokens.
    pub(super) fn with_top(&self, top: usize) -> Self {
        Self { top: self.top.iter().take(top).copied().collect(), ..*self }
    }
}

impl Default for GenerationSettings {
    /// Greedy decoding of up to 256 tokens, for eight prompts at a time.
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: 0,
            stop: Vec::new(),
            batch: 8,
        }
    }
}

impl GenerationSettings {
    /// Validates the settings, and returns the sampling parameters (`None` for greedy decoding) and the repetition
    /// penalty.
    fn validate(&self, config: &ModelConfig) -> Result<(Option<Sampling>, f64), LmError> {
        let Self { max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed: _, stop, batch } = self;
        if *max_tokens == 0 {
            return Err(refuse_setting("max_tokens", "at least 1", max_tokens));
        }
        let sampling = Sampling::of(SamplingParameters {
            temperature: Some(*temperature),
            top_k: *top_k,
            top_p: *top_p,
            min_p: *min_p,
            repetition_penalty: *repetition_penalty,
        })?;
        if let Some(token) = stop.iter().find(|token| **token as usize >= config.vocabulary) {
            return Err(refuse_setting("stop", format!("tokens less than {}", config.vocabulary), token));
        }
        if *batch == 0 {
            return Err(refuse_setting("batch", "at least 1", batch));
        }
        Ok(sampling)
    }
}

fn validate_prompt(index: usize, prompt: &[u32], config: &ModelConfig) -> Result<(), LmError> {
    let field = format!("prompts[{index}]");
    // The response needs at least one position.
    if prompt.is_empty() || prompt.len() >= config.positions {
        let allowed = format!("1 to {} tokens", config.positions.saturating_sub(1));
        return Err(refuse(&field, allowed, prompt.len()));
    }
    match prompt.iter().find(|token| **token as usize >= config.vocabulary) {
        Some(token) => Err(refuse(&field, format!("tokens less than {}", config.vocabulary), token)),
        None => Ok(()),
    }
}

/// Generates a response to every prompt, in the order of the prompts.
///
/// # Errors
///
/// [`LmError::Setting`]; [`LmError::Record`] for a prompt that is empty, fills all of the model's positions or has
/// tokens outside of the vocabulary; [`LmError::Logits`] for a model whose numbers overflow; [`LmError::Engine`].
///
/// # Examples
///
/// ```
/// use lm::checkpoint::config::Dtype;
/// use lm::engine::generate::{GenerationSettings, generate};
/// use lm::transformer::model::Transformer;
///
/// let folder = "../../tests/oracles/checkpoints/llama".as_ref();
/// let model = Transformer::read(folder, Dtype::Float32, tch::Device::Cpu)?;
/// let settings = GenerationSettings { max_tokens: 4, stop: vec![2], ..GenerationSettings::default() };
/// let found = generate(&model, &[vec![1, 30, 31], vec![1, 40]], &settings)?;
/// assert!(found.iter().all(|found| (1..=4).contains(&found.response.len())));
/// # Ok::<(), lm::error::LmError>(())
/// ```
pub fn generate(
    model: &Transformer,
    prompts: &[impl AsRef<[u32]>],
    settings: &GenerationSettings,
) -> Result<Vec<Continuation>, LmError> {
    let mut found = Vec::with_capacity(prompts.len());
    generate_each(model, prompts, settings, 0, |continuation| {
        found.push(continuation);
        Ok::<_, LmError>(())
    })?;
    Ok(found)
}

/// Generates responses to all but the first `known` prompts. Calls `each` with every response in the order of the
/// prompts, as soon as it and all before it are complete. The responses equal those of [`generate`] to the last bit.
///
/// # Errors
///
/// As [`generate`], and those of `each`.
pub fn generate_each<E: From<LmError>>(
    model: &Transformer,
    prompts: &[impl AsRef<[u32]>],
    settings: &GenerationSettings,
    known: usize,
    mut each: impl FnMut(Continuation) -> Result<(), E>,
) -> Result<(), E> {
    let sampling = settings.validate(model.config())?;
    let prompts: Vec<&[u32]> = prompts.iter().map(AsRef::as_ref).collect();
    for (index, prompt) in prompts.iter().enumerate() {
        validate_prompt(index, prompt, model.config())?;
    }
    let size = settings.batch.saturating_mul(GROUP);
    for (number, group) in prompts.chunks(size).enumerate() {
        let first = number * size;
        if first + group.len() > known {
            generate_group(model, group, first, settings, sampling, |index, continuation| {
                if index < known { Ok(()) } else { each(continuation) }
            })?;
        }
    }
    Ok(())
}

/// Generates responses to one group of prompts, the first of which has index `first` in the whole list.
fn generate_group<E: From<LmError>>(
    model: &Transformer,
    prompts: &[&[u32]],
    first: usize,
    settings: &GenerationSettings,
    (sampling, penalty): (Option<Sampling>, f64),
    mut each: impl FnMut(usize, Continuation) -> Result<(), E>,
) -> Result<(), E> {
    let task = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream((first + index) as u64);
        let prompt = prompts[index].to_vec();
        Task {
            max_tokens: settings.max_tokens.min(model.config().positions - prompt.len()),
            prompt,
            sampling,
            penalty,
            rng,
            stop: settings.stop.clone(),
            scores: false,
            top: 0,
        }
    };
    let mut tasks: Vec<_> = (0..prompts.len()).map(|index| (index, task(index))).collect();
    // The longest prompts come first, so that a lack of memory shows at once.
    tasks.sort_by_key(|(_, task)| Reverse(task.prompt.len()));
    let mut longest: Vec<usize> = tasks.iter().map(|(_, task)| task.tokens()).collect();
    longest.sort_unstable_by_key(|tokens| Reverse(*tokens));
    let tokens = longest.iter().take(settings.batch).sum();
    let mut engine = Engine::new(model, Room { sequences: settings.batch, tokens, step: STEP });
    for (index, task) in tasks {
        engine.add(index as u64, task);
    }
    let begun = Made { response: Vec::new(), log_prob: Vec::new(), finish: None };
    let mut found = vec![begun; prompts.len()];
    let (mut given, mut refused) = (0, None);
    while !engine.is_idle() {
        engine.step(&mut |index, report| {
            let made = &mut found[index as usize];
            match report {
                Report::Prompt(_) => {}
                Report::Token(Scored { token, log_prob, .. }) => {
                    made.response.push(token);
                    made.log_prob.push(log_prob);
                }
                Report::End(finish) => made.finish = Some(finish),
                Report::NotNumbers => refused = Some(index as usize),
            }
        })?;
        if let Some(prompt) = refused {
            return Err(LmError::Logits { prompt: first + prompt }.into());
        }
        while let Some(Made { response, log_prob, finish }) = found.get_mut(given)
            && let Some(finish) = *finish
        {
            let (response, log_prob) = (std::mem::take(response), std::mem::take(log_prob));
            each(first + given, Continuation { response, log_prob, finish })?;
            given += 1;
        }
    }
    Ok(())
}

/// Part of a continuation; `finish` is set at its end.
#[derive(Clone)]
struct Made {
    response: Vec<u32>,
    log_prob: Vec<f64>,
    finish: Option<Finish>,
}
