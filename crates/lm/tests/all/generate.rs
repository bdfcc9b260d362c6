//! Generated responses agree with transformers, alone and beside others, and have the model's frequencies.

use std::collections::BTreeSet;
use std::path::Path;

use crate::oracle::{answers, close, device, ids, model, numbers};
use lm::checkpoint::config::Dtype;
use lm::engine::generate::{Continuation, Finish, GenerationSettings, generate};
use lm::error::LmError;
use lm::train::policy::LmPolicy;
use lm::transformer::batch::{Packing, Sequence, States};
use lm::transformer::model::Transformer;
use objective::{Statistic, TokenStatistics};
use tch::no_grad;
use training::{Frozen, Policy};

/// Bound of the differences between two summation orders of the same 32-bit numbers, for logits of about ten; a wrong
/// token or position causes a thousand times as much.
const ROUNDING: f64 = 5e-5;

const CHECKPOINTS: [&str; 6] = ["llama", "llama-sharded", "mistral", "gemma", "qwen2", "qwen2-sliding"];

fn greedy(max_tokens: usize, batch: usize) -> GenerationSettings {
    GenerationSettings { max_tokens, batch, ..GenerationSettings::default() }
}

fn sampled(max_tokens: usize, batch: usize) -> GenerationSettings {
    GenerationSettings { temperature: 1.0, ..greedy(max_tokens, batch) }
}

/// Prompts of several lengths, some of them equal.
fn prompts() -> Vec<Vec<u32>> {
    let lengths = [9, 1, 23, 2, 9, 40, 5, 1, 17, 9, 3];
    lengths
        .iter()
        .enumerate()
        .map(|(row, length)| (0..*length).map(|place| (7 * place + 31 * row as u32 + 5) % 96).collect())
        .collect()
}

fn responses(continuations: &[Continuation]) -> Vec<Vec<u32>> {
    continuations.iter().map(|continuation| continuation.response.clone()).collect()
}

/// Log-probabilities of a response's tokens, computed as in training.
pub(crate) fn log_probs(policy: &LmPolicy, prompt: &[u32], response: &[u32]) -> Vec<f64> {
    let states = States::new(policy.model(), &[Sequence { prompt, response }], Packing::Padded).unwrap();
    let forward = policy.forward(&states).unwrap();
    let tokens: Vec<_> = response.iter().map(|token| *token as usize).collect();
    let mut statistics = TokenStatistics::default();
    policy.statistics(&forward, Frozen::default(), &tokens, Statistic::LogProb.into(), &mut statistics).unwrap();
    statistics.log_prob
}

/// Distribution of the model after a prompt.
fn distribution(policy: &LmPolicy, prompt: &[u32]) -> Vec<f64> {
    let vocabulary = policy.model().config().vocabulary as u32;
    (0..vocabulary).map(|token| log_probs(policy, prompt, &[token])[0].exp()).collect()
}

#[test]
fn greedy_continuations_are_those_of_transformers_alone_and_beside_others() {
    for answer in answers("checkpoints.json")["checkpoints"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let model = model(name);
        let case = &answer["sequences"][1];
        let prompt = ids(&case["ids"]);
        let expected = ids(&answer["greedy"]);
        let alone = generate(&model, &[&prompt], &greedy(expected.len(), 1)).unwrap();
        assert_eq!(alone[0].response, expected, "{name}");
        assert_eq!(alone[0].finish, Finish::Length, "{name}");
        let logits = numbers(&case["logits"][(prompt.len() - 1).to_string()]);
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        close(&alone[0].log_prob[..1], &[logits[expected[0] as usize] - sum.ln()], 1e-5, name);
        let mut all = prompts();
        all.insert(4, prompt);
        let together = generate(&model, &all, &greedy(expected.len(), all.len())).unwrap();
        assert_eq!(together[4].response, expected, "{name}, beside others");
    }
}

#[test]
fn rows_of_a_batch_go_on_as_they_do_alone() {
    for name in CHECKPOINTS {
        let model = model(name);
        // The response is longer than a block of the cache, so that the cache grows.
        let together = generate(&model, &prompts(), &greedy(70, 11)).unwrap();
        for (prompt, found) in prompts().iter().zip(&together) {
            let alone = generate(&model, &[prompt], &greedy(70, 1)).unwrap();
            assert_eq!(found.response, alone[0].response, "{name}, {} tokens", prompt.len());
            close(&found.log_prob, &alone[0].log_prob, ROUNDING, name);
        }
    }
}

#[test]
fn log_probabilities_are_those_that_training_computes() {
    for name in CHECKPOINTS {
        let policy = LmPolicy::frozen(model(name));
        let narrowed = GenerationSettings { temperature: 1.7, top_k: Some(60), top_p: Some(0.9), ..sampled(70, 6) };
        for settings in [greedy(70, 6), sampled(70, 4), narrowed] {
            let found = generate(policy.model(), &prompts(), &settings).unwrap();
            for (prompt, found) in prompts().iter().zip(found) {
                assert_eq!(found.response.len(), 70);
                close(&found.log_prob, &log_probs(&policy, prompt, &found.response), ROUNDING, name);
            }
        }
    }
}

#[test]
fn greedy_tokens_are_the_most_probable_after_all_before_them() {
    let policy = LmPolicy::frozen(model("mistral"));
    let prompt = prompts().remove(0);
    let found = generate(policy.model(), &[&prompt], &greedy(12, 1)).unwrap().remove(0);
    let mut whole = prompt;
    for (token, log_prob) in found.response.into_iter().zip(found.log_prob) {
        let probs = distribution(&policy, &whole);
        assert!(probs.iter().all(|prob| *prob <= probs[token as usize]));
        close(&[log_prob.exp()], &[probs[token as usize]], 1e-5, "probability");
        whole.push(token);
    }
}

/// Pearson's χ² of counts, with its degrees of freedom; tokens with expected counts below five are pooled.
fn chi_square(counts: &[usize], probs: &[f64]) -> (f64, f64) {
    let draws: usize = counts.iter().sum();
    let (mut sum, mut cells) = (0.0, 0.0);
    let mut add = |count: f64, expected: f64| {
        sum += (count - expected).powi(2) / expected;
        cells += 1.0;
    };
    let (mut rare, mut expected_rare) = (0.0, 0.0);
    for (count, prob) in counts.iter().zip(probs) {
        let expected = prob * draws as f64;
        if expected < 5.0 {
            rare += *count as f64;
            expected_rare += expected;
        } else {
            add(*count as f64, expected);
        }
    }
    if expected_rare > 0.0 {
        add(rare, expected_rare);
    }
    (sum, cells - 1.0)
}

/// Number of times that each token is sampled first.
fn counts(model: &Transformer, prompt: &[u32], draws: usize, settings: &GenerationSettings) -> Vec<usize> {
    let mut counts = vec![0; model.config().vocabulary];
    for found in generate(model, &vec![prompt; draws], settings).unwrap() {
        counts[found.response[0] as usize] += 1;
    }
    counts
}

/// Whether counts are likely under these probabilities: χ² has mean f and variance 2 f.
fn is_likely(counts: &[usize], probs: &[f64]) -> bool {
    let (sum, freedom) = chi_square(counts, probs);
    sum < freedom + 4.0 * (2.0 * freedom).sqrt()
}

fn normalized(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let weights: Vec<_> = weights.collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

#[test]
fn tokens_are_drawn_as_often_as_the_model_says() {
    let policy = LmPolicy::frozen(model("llama"));
    let prompt = prompts().remove(0);
    let probs = distribution(&policy, &prompt);
    let warm = normalized(probs.iter().map(|prob| prob.powf(1.0 / 1.3)));
    let mut sorted = probs.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let of_ten = normalized(probs.iter().map(|prob| if *prob >= sorted[9] { *prob } else { 0.0 }));
    let cases = [
        (sampled(1, 500), &probs),
        (GenerationSettings { temperature: 1.3, ..sampled(1, 500) }, &warm),
        (GenerationSettings { top_k: Some(10), ..sampled(1, 500) }, &of_ten),
    ];
    for (settings, own) in &cases {
        let counts = counts(policy.model(), &prompt, 6000, settings);
        for (_, probs) in &cases {
            // A sample from another distribution must be detected.
            assert_eq!(is_likely(&counts, probs), std::ptr::eq(*own, *probs), "{settings:?}");
        }
    }
}

#[test]
fn tokens_beyond_top_k_and_top_p_are_never_drawn() {
    let policy = LmPolicy::frozen(model("qwen2"));
    let prompt = prompts().remove(2);
    let probs = distribution(&policy, &prompt);
    let mut order: Vec<usize> = (0..probs.len()).collect();
    order.sort_by(|a, b| probs[*b].total_cmp(&probs[*a]));
    let mut sum = 0.0;
    let reaches = order.iter().position(|token| {
        sum += probs[*token];
        sum >= 0.6
    });
    for (settings, kept) in [
        (GenerationSettings { top_k: Some(4), ..sampled(1, 500) }, 4),
        (GenerationSettings { top_p: Some(0.6), ..sampled(1, 500) }, reaches.unwrap() + 1),
    ] {
        let counts = counts(policy.model(), &prompt, 3000, &settings);
        let mut drawn: Vec<_> = (0..probs.len()).filter(|token| counts[*token] > 0).collect();
        let mut expected = order[..kept].to_vec();
        drawn.sort_unstable();
        expected.sort_unstable();
        assert_eq!(drawn, expected, "{settings:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens_whatever_the_batch_and_another_gives_others() {
    let model = model("qwen2-sliding");
    let all = prompts();
    let of = |settings: GenerationSettings| responses(&generate(&model, &all, &settings).unwrap());
    let expected = of(sampled(20, 11));
    for batch in [1, 2, 3, 100] {
        assert_eq!(of(sampled(20, batch)), expected, "batches of {batch}");
    }
    assert_ne!(of(GenerationSettings { seed: 1, ..sampled(20, 11) }), expected);
    // Equal prompts have different streams.
    let twice = responses(&generate(&model, &[&all[0], &all[0]], &sampled(20, 2)).unwrap());
    assert_eq!(twice[0], expected[0]);
    assert_ne!(twice[0], twice[1]);
}

#[test]
fn a_row_ends_with_its_first_stop_token_and_the_others_go_on() {
    let model = model("gemma");
    let all = prompts();
    let free = generate(&model, &all, &sampled(80, 11)).unwrap();
    let token = |row: usize, place: usize| free[row].response[place];
    // The second response is long enough for the cache to grow after some rows have ended.
    for (max_tokens, stop) in [(12, vec![token(0, 3), token(5, 7), token(8, 0)]), (80, vec![token(1, 2)])] {
        let cut =
            generate(&model, &all, &GenerationSettings { stop: stop.clone(), ..sampled(max_tokens, 11) }).unwrap();
        let mut lengths = BTreeSet::new();
        for (free, cut) in free.iter().zip(&cut) {
            let free_to = &free.response[..max_tokens];
            let end = free_to.iter().position(|token| stop.contains(token));
            assert_eq!(cut.response, free_to[..end.map_or(max_tokens, |end| end + 1)]);
            close(&cut.log_prob, &free.log_prob[..cut.response.len()], ROUNDING, "log-probabilities");
            assert_eq!(cut.finish, if end.is_some() { Finish::Stop } else { Finish::Length });
            lengths.insert(cut.response.len());
        }
        let finishes = [Finish::Stop, Finish::Length];
        assert!(finishes.iter().all(|finish| cut.iter().any(|cut| cut.finish == *finish)), "{lengths:?}");
        assert!(lengths.len() > 3, "{lengths:?}");
    }
    // A stop token at the end of a prompt does not end its response.
    let after = GenerationSettings { stop: vec![*all[0].last().unwrap()], ..greedy(1, 1) };
    assert_eq!(generate(&model, &all[..1], &after).unwrap()[0].response.len(), 1);
}

#[test]
fn a_response_ends_at_the_model_s_last_position() {
    let model = model("mistral");
    let long: Vec<u32> = (0..125).map(|place| place % 96).collect();
    let found = generate(&model, &[&long, &long[..3].to_vec()], &greedy(10, 2)).unwrap();
    assert_eq!(found.iter().map(|found| found.response.len()).collect::<Vec<_>>(), [3, 10]);
    assert!(found.iter().all(|found| found.finish == Finish::Length));
}

#[test]
fn no_prompts_have_no_answers() {
    assert_eq!(generate(&model("llama"), &Vec::<Vec<u32>>::new(), &greedy(1, 1)).unwrap(), []);
}

#[test]
fn prompts_and_settings_out_of_range_are_refused_by_name() {
    let model = model("mistral");
    let prompt: &[u32] = &[1, 2];
    let refused = |prompts: &[&[u32]], settings: &GenerationSettings| {
        generate(&model, prompts, settings).unwrap_err().to_string()
    };
    let setting = |settings: GenerationSettings| refused(&[prompt], &settings);
    assert_eq!(refused(&[prompt, &[]], &greedy(1, 1)), "prompts[1]: expected 1 to 127 tokens, got 0");
    assert_eq!(refused(&[&[0; 128]], &greedy(1, 1)), "prompts[0]: expected 1 to 127 tokens, got 128");
    assert_eq!(refused(&[&[1, 96]], &greedy(1, 1)), "prompts[0]: expected tokens less than 96, got 96");
    assert_eq!(setting(greedy(0, 1)), "max_tokens: expected at least 1, got 0");
    assert_eq!(setting(greedy(1, 0)), "batch: expected at least 1, got 0");
    let of = |temperature| GenerationSettings { temperature, ..greedy(1, 1) };
    assert_eq!(setting(of(-0.5)), "temperature: expected a number of at least 0, got -0.5");
    assert_eq!(setting(of(f64::NAN)), "temperature: expected a number of at least 0, got NaN");
    assert_eq!(setting(GenerationSettings { top_k: Some(0), ..of(1.0) }), "top_k: expected at least 1, got 0");
    for top_p in [0.0, 1.5, f64::NAN] {
        let expected = format!("top_p: expected greater than 0, at most 1, got {top_p}");
        assert_eq!(setting(GenerationSettings { top_p: Some(top_p), ..of(1.0) }), expected);
    }
    let unused = "expected nothing at temperature 0, as it would have no effect, got";
    assert_eq!(setting(GenerationSettings { top_k: Some(5), ..of(0.0) }), format!("top_k: {unused} 5"));
    assert_eq!(setting(GenerationSettings { top_p: Some(0.5), ..of(0.0) }), format!("top_p: {unused} 0.5"));
    assert_eq!(
        setting(GenerationSettings { stop: vec![2, 100], ..of(0.0) }),
        "stop: expected tokens less than 96, got 100"
    );
}

#[test]
fn weights_that_are_no_numbers_are_refused_and_the_prompt_named() {
    let model = model("llama");
    no_grad(|| _ = model.parameters()[0].shallow_clone().get(7).fill_(f64::NAN));
    for settings in [greedy(2, 4), sampled(2, 4)] {
        let error = generate(&model, &[[1_u32], [7]], &settings).unwrap_err();
        assert!(matches!(error, LmError::Logits { prompt: 1 }), "{error}");
    }
}

#[test]
fn smollm2_goes_on_as_transformers_lets_it() {
    let Some(folder) = std::env::var_os("SMOLLM2") else {
        eprintln!("skipped: SMOLLM2 is not the folder of SmolLM2-135M-Instruct");
        return;
    };
    let model = Transformer::read(Path::new(&folder), Dtype::Float32, device()).unwrap();
    let answer = &answers("smollm2_scores.json")["greedy"];
    let (prompt, expected) = (ids(&answer["prompt_ids"]), ids(&answer["response_ids"]));
    let short = prompt[..7].to_vec();
    let together = generate(&model, &[&short, &prompt], &greedy(expected.len(), 2)).unwrap();
    let alone = generate(&model, &[&prompt], &greedy(expected.len(), 1)).unwrap();
    assert_eq!(alone[0].response, expected);
    assert_eq!(together[1].response, expected);
}
