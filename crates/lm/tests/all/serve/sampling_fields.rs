//! `generation_config.json` has the defaults of a request's fields, as in vLLM.

use lm::engine::generate::{Finish, GenerationSettings, generate};
use serde_json::{Value, json};

use super::run;
use super::running::{Running, limits};
use crate::oracle::{checkpoint, copy_files, ids, model};

#[test]
fn requests_override_the_sampling_parameters_and_end_tokens_of_the_file() {
    let prompt: Vec<u32> = (20..29).collect();
    let llama = model("llama");
    let told = |settings: GenerationSettings| generate(&llama, &[&prompt], &settings).unwrap().remove(0);
    let greedy = told(GenerationSettings { max_tokens: 12, ..GenerationSettings::default() }).response;
    let penalised =
        told(GenerationSettings { max_tokens: 12, repetition_penalty: Some(1.5), ..GenerationSettings::default() })
            .response;
    assert_ne!(greedy, penalised);
    let text = |tokens: &[u32]| tokens.iter().map(|token| format!(" {token}")).collect::<String>();
    let end = greedy.iter().position(|token| greedy[..3].iter().all(|first| first != token)).unwrap_or(2);
    let answer = |file: Value, more: Value| {
        let folder = tempfile::tempdir().unwrap();
        copy_files(&checkpoint("llama"), folder.path());
        std::fs::write(folder.path().join("generation_config.json"), file.to_string()).unwrap();
        let mut body = json!({"prompt": prompt, "max_tokens": 12, "seed": 3});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut choice = Value::Null;
        let running = Running::of(folder.path(), limits(), None);
        run(async {
            choice = running.completion(&body).await["choices"][0].clone();
        });
        (choice["text"].as_str().unwrap().to_owned(), choice["finish_reason"].as_str().unwrap().to_owned())
    };
    let length = |tokens: &[u32]| (text(tokens), "length".to_owned());
    // `do_sample` is not read, and `top_k` of 1 leaves the most probable token.
    assert_eq!(answer(json!({"do_sample": false, "top_k": 1}), json!({})), length(&greedy));
    let free = answer(json!({"top_k": 1}), json!({"top_k": 0, "temperature": 5.0}));
    assert_ne!(free.0, text(&greedy));
    assert_eq!(answer(json!({"temperature": 0}), json!({})), length(&greedy));
    assert_eq!(answer(json!({"temperature": 0, "repetition_penalty": 1.5}), json!({})), length(&penalised));
    assert_eq!(
        answer(json!({"repetition_penalty": 1.5}), json!({"temperature": 0, "repetition_penalty": 1})),
        length(&greedy)
    );
    // Its end tokens replace those of the configuration.
    let ended = answer(json!({"temperature": 0, "eos_token_id": [95, greedy[end]]}), json!({}));
    assert_eq!(ended.1, "stop");
    assert!(text(&greedy).starts_with(&ended.0), "{ended:?}");
    let library = told(GenerationSettings { max_tokens: 12, stop: vec![greedy[end]], ..GenerationSettings::default() });
    assert_eq!((library.finish, ids(&json!(library.response)).last()), (Finish::Stop, Some(&greedy[end])));
}
