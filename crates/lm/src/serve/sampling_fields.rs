//! Sampling parameters of a request, with defaults from the model's `generation_config.json` as in vLLM.

use super::Server;
use super::refusal::Refusal;
use super::request::Fields;
use crate::checkpoint::generation_config::SamplingParameters;
use crate::engine::sampling::Sampling;

/// Reads the sampling parameters (`None` for greedy decoding) and the repetition penalty.
pub(super) fn read(fields: &mut Fields, server: &Server) -> Result<(Option<Sampling>, f64), Refusal> {
    let given = SamplingParameters {
        temperature: fields.take("temperature", "a number of at least 0")?,
        top_k: fields.take::<i64>("top_k", TOP_K)?.map(top_k).transpose()?,
        top_p: fields.take("top_p", "a number greater than 0, at most 1")?,
        min_p: fields.take("min_p", "0 to 1")?,
        repetition_penalty: fields.take("repetition_penalty", "a number above 0")?,
    };
    let refuse = |error| Refusal::of(&error, "temperature");
    // Values out of range are rejected at any temperature.
    let range = SamplingParameters { temperature: Some(1.0), top_k: None, ..given };
    _ = Sampling::of(range).map_err(refuse)?;
    let parameters = server.generation.as_vllm(given);
    // At temperature 0, no truncation of the distribution removes the most probable token.
    let is_greedy = parameters.temperature == Some(0.0);
    let cut =
        if is_greedy { SamplingParameters { top_k: None, top_p: None, min_p: None, ..parameters } } else { parameters };
    Sampling::of(cut).map_err(refuse)
}

const TOP_K: &str = "a whole number of at least 0, or -1";

/// Number of tokens to sample from; -1 and 0 mean all of them.
fn top_k(given: i64) -> Result<usize, Refusal> {
    if given == -1 { Ok(0) } else { usize::try_from(given).map_err(|_| Refusal::field("top_k", TOP_K, given)) }
}
