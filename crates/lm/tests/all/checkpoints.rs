//! Logits and log-probabilities of tiny checkpoints agree with transformers; `tests/oracles/checkpoints.py` recorded
//! them.

use crate::oracle::{answers, checkpoint, close, copy_files, device, ids, model, model_in, numbers};
use lm::checkpoint::config::Dtype;
use lm::engine::generate::{GenerationSettings, generate};
use lm::train::policy::LmPolicy;
use lm::transformer::batch::{Packing, Sequence, States};
use lm::transformer::model::Transformer;
use lm::transformer::model::tape::Keep;
use objective::{Statistic, TokenStatistics};
use serde_json::Value;
use tch::{Kind, Tensor};
use training::{Frozen, Policy};

/// Log-probabilities of all tokens but the first of each sequence, given the tokens before.
fn log_probs(policy: &LmPolicy, sequences: &[Vec<u32>], packing: Packing) -> Vec<f64> {
    let sequences: Vec<_> = sequences.iter().map(|ids| Sequence { prompt: &ids[..1], response: &ids[1..] }).collect();
    let tokens: Vec<usize> =
        sequences.iter().flat_map(|sequence| sequence.response).map(|token| *token as usize).collect();
    let states = States::new(policy.model(), &sequences, packing).unwrap();
    let forward = policy.forward(&states).unwrap();
    let mut statistics = TokenStatistics::default();
    policy.statistics(&forward, Frozen::default(), &tokens, Statistic::LogProb.into(), &mut statistics).unwrap();
    statistics.log_prob
}

fn sequences(answer: &Value) -> Vec<&Value> {
    answer["sequences"].as_array().unwrap().iter().filter(|case| case["ids"].as_array().unwrap().len() > 1).collect()
}

#[test]
fn log_probabilities_agree_with_transformers_for_every_architecture() {
    for answer in answers("checkpoints.json")["checkpoints"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let policy = LmPolicy::frozen(model(name));
        let cases = sequences(answer);
        let all: Vec<_> = cases.iter().map(|case| ids(&case["ids"])).collect();
        let expected: Vec<f64> = cases.iter().flat_map(|case| numbers(&case["log_prob"])).collect();
        for packing in [Packing::Padded, Packing::Packed] {
            close(&log_probs(&policy, &all, packing), &expected, 1e-5, &format!("{name}, {packing}"));
        }
        for (ids, case) in all.iter().zip(cases) {
            let alone = log_probs(&policy, std::slice::from_ref(ids), Packing::Padded);
            close(&alone, &numbers(&case["log_prob"]), 1e-5, &format!("{name}, alone"));
        }
    }
}

#[test]
fn logits_agree_with_transformers_for_every_architecture() {
    for answer in answers("checkpoints.json")["checkpoints"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let model = model(name);
        for case in answer["sequences"].as_array().unwrap() {
            let mut ids = ids(&case["ids"]);
            // A response's last token is not an input, so one more token makes all of them states.
            ids.push(0);
            let sequence = Sequence { prompt: &ids[..1], response: &ids[1..] };
            let states = States::new(&model, &[sequence], Packing::Padded).unwrap();
            let embeddings = states.embeddings(&model).unwrap();
            let (hidden, _) = model.forward(&embeddings, &states.places(), Keep::Nothing).unwrap();
            let logits = hidden.matmul(&model.head().tr());
            for (place, expected) in case["logits"].as_object().unwrap() {
                let row = logits.get(place.parse().unwrap()).to_kind(Kind::Double);
                let row: Vec<f64> = Vec::try_from(row).unwrap();
                close(&row, &numbers(expected), 2e-5, &format!("{name}, {place}"));
            }
        }
    }
}

#[test]
fn sixteen_bits_are_near_thirty_two() {
    for answer in answers("checkpoints.json")["checkpoints"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let narrow = LmPolicy::frozen(model_in(name, Dtype::Bfloat16));
        assert_eq!(narrow.model().kind(), Kind::BFloat16);
        let case = &answer["sequences"][2];
        for packing in [Packing::Padded, Packing::Packed] {
            let found = log_probs(&narrow, &[ids(&case["ids"])], packing);
            let expected = numbers(&case["log_prob"]);
            // Differences of up to 0.036 were observed.
            close(&found, &expected, 0.1, &format!("{name}, {packing}"));
        }
    }
}

#[test]
fn greedy_tokens_are_the_most_probable_ones() {
    let model = model("gemma");
    let ids: Vec<u32> = (3..23).collect();
    let states = States::new(&model, &[Sequence { prompt: &ids[..1], response: &ids[1..] }], Packing::Padded).unwrap();
    let (hidden, _) = model.forward(&states.embeddings(&model).unwrap(), &states.places(), Keep::Nothing).unwrap();
    let greedy = lm::transformer::head::Head { hidden: &hidden, weights: model.head(), kept: None }.greedy().unwrap();
    let expected: Tensor = hidden.matmul(&model.head().tr()).argmax(-1, false);
    assert_eq!(greedy, expected);
}

/// Tests transformers' rule: the output weights are the embedding table if both have the same numbers or only one of
/// the two exists, whatever the configuration says (`tests/oracles/tied.py`).
#[test]
fn output_weights_that_differ_from_the_table_are_loaded_and_written_as_they_are() {
    use safetensors::SafeTensors;
    use safetensors::tensor::TensorView;
    for case in answers("tied.json")["cases"].as_array().unwrap() {
        let (name, checkpoint_name) = (case["name"].as_str().unwrap(), case["checkpoint"].as_str().unwrap());
        let place = tempfile::tempdir().unwrap();
        copy_files(&checkpoint(checkpoint_name), place.path());
        let path = place.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let table = stored.tensor("model.embed_tokens.weight").unwrap();
        let rows = table.data().chunks(table.data().len() / table.shape()[0]);
        let reversed: Vec<u8> = rows.rev().flatten().copied().collect();
        let head = if name == "as the table" { table.data() } else { &reversed };
        let head = TensorView::new(table.dtype(), table.shape().to_vec(), head).unwrap();
        let is_there = |tensor: &str| name != "in the table's place" || tensor != "model.embed_tokens.weight";
        let tensors = stored.tensors().into_iter().filter(|(tensor, _)| is_there(tensor));
        let tensors = tensors.chain([("lm_head.weight".to_owned(), head)]);
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();

        let read = |folder: &std::path::Path| Transformer::read(folder, Dtype::Float32, device()).unwrap();
        let model = read(place.path());
        assert_eq!(model.config().tied_embeddings, case["tied"], "{name}");
        // The loaded weights are written with a configuration that loads them again.
        let target = place.path().join("written");
        lm::checkpoint::folder::write(&target, place.path(), &model.trained(), Dtype::Float32).unwrap();
        assert_eq!(lm::checkpoint::config::read_config(&target).unwrap().tied_embeddings, case["tied"], "{name}");
        let prompt = ids(&case["ids"]);
        for model in [model, read(&target)] {
            let settings = GenerationSettings { max_tokens: 8, ..GenerationSettings::default() };
            let greedy = generate(&model, &[&prompt], &settings).unwrap();
            assert_eq!(greedy[0].response, ids(&case["greedy"]), "{name}");
            let found = log_probs(&LmPolicy::frozen(model), std::slice::from_ref(&prompt), Packing::Padded);
            close(&found, &numbers(&case["log_prob"]), 1e-5, name);
        }
    }
}
