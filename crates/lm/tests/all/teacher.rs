//! Divergences from a teacher in the head agree with TRL; `tests/oracles/distillation.py` recorded them in float64.

use lm::checkpoint::config::read_config;
use lm::checkpoint::folder::{Replaced, Text};
use lm::train::micro_batch::plan;
use lm::train::policy::LmPolicy;
use lm::train::recipe::default_now;
use lm::train::reference::Reference;
use lm::train::teacher::Teacher;
use lm::transformer::batch::Packing;
use lm::transformer::head::Head;
use lm::transformer::model::tape::Keep;
use objective::{Distillation, DistillationDivergence, Objective, Statistic, TeacherDivergence, TokenStatistics};
use tch::{Kind, Tensor};
use text::data::Record;
use text::example::Example;
use training::{Frozen, Step};

use crate::oracle::{answers, close, copy_files, device, model, numbers, oracles, speaking};

#[test]
fn divergences_and_their_pull_back_agree_with_trl() {
    for case in answers("distillation.json")["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let [own, teacher] = ["logits", "teacher"].map(|column| numbers(&case[column]));
        let size = own.len() as i64;
        // With the identity as output weights, the hidden states are the logits.
        let weights = Tensor::eye(size, (Kind::Float, device()));
        let hidden = |row: &[f64]| Tensor::from_slice(row).to_kind(Kind::Float).to_device(device()).view([1, size]);
        let (own, teacher) = (hidden(&own), hidden(&teacher));
        let head = Head { hidden: &own, weights: &weights, kept: None };
        let other = Head { hidden: &teacher, weights: &weights, kept: None };
        let kind = match case["divergence"].as_str().unwrap() {
            "forward_kl" => TeacherDivergence::ForwardKl,
            "reverse_kl" => TeacherDivergence::ReverseKl,
            _ => TeacherDivergence::JensenShannon { beta: case["beta"].as_f64().unwrap() },
        };
        let frozen = Frozen { reference: None, teacher: Some((&other, kind)) };
        let mut statistics = TokenStatistics::default();
        head.statistics(frozen, &[0], Statistic::TeacherDivergence.into(), &mut statistics).unwrap();
        close(&statistics.teacher_divergence, &[case["value"].as_f64().unwrap()], 2e-6, name);
        let cotangents = TokenStatistics { teacher_divergence: vec![1.0], ..TokenStatistics::default() };
        let pulled = head.pull_back(frozen, &[0], &cotangents, None).unwrap().to_kind(Kind::Double).view([size]);
        close(&Vec::<f64>::try_from(pulled).unwrap(), &numbers(&case["cotangent"]), 2e-6, name);
    }
}

/// Loss and gradient norm of a distillation from another checkpoint.
fn distil(teacher: &str, divergence: DistillationDivergence, packing: Packing) -> (f64, Vec<Vec<f64>>) {
    let objective = Distillation { divergence, ..Distillation::default() };
    let mut policy = LmPolicy::trained(model("llama"), Keep::Activations);
    let examples = [([3, 5, 8].as_slice(), [4, 7].as_slice()), (&[9], &[6, 2, 11])];
    let records = examples.map(|(prompt, response)| {
        Record::Demonstration(Example { prompt: prompt.to_vec(), response: response.to_vec(), end: 0 })
    });
    let requirements = objective.requirements();
    let plans = plan(&requirements, &records.iter().collect::<Vec<_>>(), 2).unwrap();
    let mut batches = Reference::None.micro_batches(&requirements, policy.model(), &plans, packing).unwrap();
    Teacher::of(model(teacher)).fill(&requirements, &plans[0], packing, &mut batches[0]).unwrap();
    let (loss, _) = Step::new(&objective).accumulate(&mut policy, &batches, 0.0).unwrap();
    let flat = |gradient: &Option<Tensor>| match gradient {
        Some(gradient) => Vec::<f64>::try_from(gradient.to_kind(Kind::Double).flatten(0, -1)).unwrap(),
        None => Vec::new(),
    };
    (loss, policy.gradients().iter().map(flat).collect())
}

#[test]
fn a_policy_that_is_its_own_teacher_has_nothing_to_learn_and_another_teacher_has_something_to_say() {
    use DistillationDivergence::{ForwardKl, JensenShannon, ReverseKl};
    for divergence in [ForwardKl, ReverseKl, JensenShannon] {
        let (loss, gradients) = distil("llama", divergence, Packing::Padded);
        assert!(loss < 1e-6, "{divergence:?}: {loss}");
        assert!(gradients.iter().flatten().all(|value| value.abs() < 1e-6), "{divergence:?}");
        let (loss, padded) = distil("mistral", divergence, Packing::Padded);
        assert!(loss > 1e-4 && padded.iter().flatten().any(|value| value.abs() > 1e-4), "{divergence:?}: {loss}");
        let (_, packed) = distil("mistral", divergence, Packing::Packed);
        for (padded, packed) in padded.iter().zip(&packed) {
            close(packed, padded, 1e-5, "packed");
        }
    }
}

#[test]
fn a_teacher_of_another_tokenizer_or_with_other_logits_is_refused_by_its_name() {
    let place = tempfile::tempdir().unwrap();
    let folder = speaking(place.path(), "llama");
    let text = Text::read(&folder, &Replaced::default(), default_now().unwrap()).unwrap();
    let config = read_config(&folder).unwrap();
    let check = |teacher: &std::path::Path| {
        Teacher::check("stage[0].teacher", teacher.to_str().unwrap(), &text, &config).map_err(|error| error.to_string())
    };
    assert_eq!(check(&folder), Ok(()));
    let mute = place.path().join("mute");
    std::fs::create_dir(&mute).unwrap();
    copy_files(&oracles().join("checkpoints/llama"), &mute);
    let error = check(&mute).unwrap_err();
    assert!(error.contains("stage[0].teacher: expected a model with the policy's tokenizer"), "{error}");
    assert!(error.contains("mute, whose tokenizer differs"), "{error}");
    let path = folder.join("config.json");
    let wide = place.path().join("wide");
    std::fs::create_dir(&wide).unwrap();
    copy_files(&folder, &wide);
    let mut other: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    other["vocab_size"] = (config.vocabulary + 8).into();
    std::fs::write(wide.join("config.json"), other.to_string()).unwrap();
    let error = check(&wide).unwrap_err();
    assert!(error.contains(&format!("expected a model with {} logits per token", config.vocabulary)), "{error}");
}
