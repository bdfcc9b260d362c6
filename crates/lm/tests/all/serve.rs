//! A server from its clients' point of view: each answer is the same as if the client were alone, and no client can
//! block others.

mod bounds;
mod harness;
mod locks;
mod openai;
mod origin;
mod running;
mod sampling_fields;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lm::engine::generate::{Continuation, GenerationSettings, generate};
use lm::serve::Limits;
use lm::train::policy::LmPolicy;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::running::{Running, limits};
use crate::command::fails;
use crate::generate::log_probs;
use crate::oracle::{checkpoint, close, copy_files, ids, model, numbers};

/// Bound of the differences between two summation orders of the same 32-bit numbers.
const ROUNDING: f64 = 5e-5;

/// Waits until a condition holds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// Questions with four answers each, which share all tokens before them.
fn questions() -> Vec<Vec<u32>> {
    let question = |index: u32| (0..20 + index % 7).map(move |place| (11 * place + 29 * index + 3) % 96);
    let answer = |index: u32, choice: u32| (0..1 + choice).map(move |place| (5 * place + 17 * choice + index) % 96);
    (0..9).flat_map(|index| (0..4).map(move |choice| question(index).chain(answer(index, choice)).collect())).collect()
}

/// Token ids in the text of a model without a tokenizer.
fn spelt(text: &Value) -> Vec<u32> {
    text.as_str().unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect()
}

fn settings(max_tokens: usize, temperature: f64, seed: u64) -> GenerationSettings {
    GenerationSettings { max_tokens, temperature, seed, stop: vec![2], batch: 1, ..GenerationSettings::default() }
}

/// Response without its stop token, as the text has it.
fn said(continuation: &Continuation) -> Vec<u32> {
    continuation.response.iter().copied().filter(|token| *token != 2).collect()
}

#[test]
fn echoed_prompts_are_as_probable_as_training_computes_however_much_they_share() {
    for name in ["llama", "gemma", "mistral", "qwen2-sliding"] {
        let policy = LmPolicy::frozen(model(name));
        let running = Running::tiny(name);
        run(async {
            // In the second round everything is cached, and in the third all but the most probable tokens.
            for (max_tokens, top, times) in [(1, 1, 1), (0, 1, 1), (1, 3, 2)] {
                let prompts = questions();
                let body = json!({"model": "tiny", "prompt": prompts, "temperature": 0, "max_tokens": max_tokens, "logprobs": top, "seed": 1234, "echo": true});
                let answer = running.completion(&body).await;
                for (index, (prompt, choice)) in prompts.iter().zip(answer["choices"].as_array().unwrap()).enumerate() {
                    assert_eq!(choice["index"], index);
                    let told = &choice["logprobs"];
                    let tokens = told["tokens"].as_array().unwrap().iter();
                    let whole: Vec<u32> = tokens.map(|token| token.as_str().unwrap().parse().unwrap()).collect();
                    assert_eq!((&whole[..prompt.len()], whole.len()), (&prompt[..], prompt.len() + max_tokens));
                    // A stop token is reported, but not part of the text.
                    let ends = &policy.model().config().eos;
                    let said = whole[prompt.len()..].iter().filter(|token| !ends.contains(token));
                    assert_eq!(spelt(&choice["text"]), prompt.iter().chain(said).copied().collect::<Vec<_>>());
                    let found = told["token_logprobs"].as_array().unwrap();
                    assert_eq!((&found[0], &told["top_logprobs"][0]), (&Value::Null, &Value::Null));
                    let expected = log_probs(&policy, &whole[..1], &whole[1..]);
                    close(&numbers(&json!(found[1..])), &expected, ROUNDING, name);
                    for (place, tops) in told["top_logprobs"].as_array().unwrap().iter().enumerate().skip(1) {
                        let tops = tops.as_object().unwrap();
                        assert_eq!(tops.len(), top);
                        for (token, log_prob) in tops {
                            let expected = log_probs(&policy, &whole[..place], &[token.parse().unwrap()]);
                            close(&[log_prob.as_f64().unwrap()], &expected, ROUNDING, "top_logprobs");
                        }
                        // The log-probability of a greedy token equals the greatest one to the last bit, as clients
                        // compare them.
                        let greatest = tops.values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max);
                        let own = found[place].as_f64().unwrap();
                        assert!(own <= greatest, "{own} {greatest}");
                        assert_eq!(tops.contains_key(told["tokens"][place].as_str().unwrap()), {
                            tops.values().any(|value| value.as_f64() == Some(own))
                        });
                    }
                }
                let completion: usize = answer["usage"]["completion_tokens"].as_u64().unwrap() as usize;
                assert_eq!(completion, max_tokens * prompts.len());
                // Common prefixes of prompts went through the model only once.
                let beginnings: HashSet<&[u32]> =
                    prompts.iter().flat_map(|prompt| (1..=prompt.len()).map(|end| &prompt[..end])).collect();
                assert_eq!(running.metric("lm_computed_tokens_total").await as usize, times * beginnings.len());
            }
        });
    }
}

#[test]
fn two_hundred_clients_at_once_are_each_answered_as_if_alone() {
    let (running, own) = (Running::tiny("llama"), model("llama"));
    let body = |client: u32| {
        let prompt: Vec<u32> = (0..1 + client % 23).map(|place| (7 * place + 31 * (client % 40) + 5) % 96).collect();
        let temperature = [0.0, 1.0, 0.7][client as usize % 3];
        json!({"prompt": prompt, "max_tokens": 1 + client % 19, "temperature": temperature, "seed": client, "logprobs": 0})
    };
    let begun = Instant::now();
    run(async {
        let client = Client::new();
        let asked: Vec<_> = (0..200)
            .map(|index| {
                let request = client.post(running.url("/v1/completions")).json(&body(index)).send();
                tokio::spawn(async move { request.await.unwrap().json::<Value>().await.unwrap() })
            })
            .collect();
        for (index, asked) in (0..).zip(asked) {
            let (body, answer) = (body(index), asked.await.unwrap());
            let number = |field: &str| body[field].as_u64().unwrap();
            let settings =
                settings(number("max_tokens") as usize, body["temperature"].as_f64().unwrap(), number("seed"));
            let alone = generate(&own, &[ids(&body["prompt"])], &settings).unwrap().remove(0);
            let choice = &answer["choices"][0];
            assert_eq!(spelt(&choice["text"]), said(&alone), "client {index}");
            close(&numbers(&choice["logprobs"]["token_logprobs"]), &alone.log_prob, ROUNDING, "log-probabilities");
            let finish: &str = alone.finish.into();
            assert_eq!(choice["finish_reason"], finish);
        }
        assert_eq!(running.metric("lm_queued_prompts").await, 0.0);
    });
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn prompts_that_do_not_fit_beside_others_wait_for_them_and_known_ones_make_room() {
    // Two of the longest sequences fit, so that finished ones are evicted again and again.
    let running = Running::of(&checkpoint("mistral"), Limits { cache_tokens: 256, ..limits() }, None);
    let own = model("mistral");
    let prompts: Vec<Vec<u32>> =
        (0..12).map(|row| (0..100).map(|place| (7 * place + 31 * (row % 5) + 5) % 96).collect()).collect();
    run(async {
        for _ in 0..2 {
            let body = json!({"prompt": prompts, "max_tokens": 20, "temperature": 0});
            let answer = running.completion(&body).await;
            for (prompt, choice) in prompts.iter().zip(answer["choices"].as_array().unwrap()) {
                let alone = generate(&own, &[prompt], &settings(20, 0.0, 0)).unwrap();
                assert_eq!(spelt(&choice["text"]), said(&alone[0]));
            }
        }
    });
}

/// Data of a stream's events.
async fn events(running: &Running, route: &str, body: &Value) -> Vec<Value> {
    let response = Client::new().post(running.url(route)).json(body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{text}");
    data.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[test]
fn pieces_of_a_stream_are_the_whole_when_they_are_put_together() {
    let running = Running::tiny("qwen2");
    run(async {
        let prompts = [[5, 6, 7], [40, 41, 42], [5, 6, 8]];
        let body = |stream: bool| json!({"prompt": prompts, "max_tokens": 12, "temperature": 1.1, "seed": 7, "logprobs": 2, "echo": true, "stream": stream});
        let whole = running.completion(&body(false)).await;
        let mut asked = body(true);
        asked["stream_options"] = json!({"include_usage": true});
        let mut pieces = events(&running, "/v1/completions", &asked).await;
        let last = pieces.pop().unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (&whole["usage"], &json!([])));
        for index in 0..3 {
            let own = || pieces.iter().map(|piece| &piece["choices"][0]).filter(|choice| choice["index"] == index);
            let expected = &whole["choices"][index];
            let text: String = own().map(|choice| choice["text"].as_str().unwrap()).collect();
            assert_eq!(json!(text), expected["text"]);
            for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let all: Vec<&Value> = own().flat_map(|choice| choice["logprobs"][field].as_array().unwrap()).collect();
                let expected: Vec<&Value> = expected["logprobs"][field].as_array().unwrap().iter().collect();
                if field == "tokens" || field == "text_offset" {
                    assert_eq!(all, expected, "{field}");
                }
                assert_eq!(all.len(), expected.len(), "{field}");
            }
            let finishes: Vec<&Value> = own().map(|choice| &choice["finish_reason"]).filter(|f| !f.is_null()).collect();
            assert_eq!(finishes, [&expected["finish_reason"]]);
            assert!(own().count() > 2);
        }
    });
}

/// A checkpoint with a tokenizer of single bytes: `é` is two tokens, and every other token is an ASCII letter.
fn spelling() -> TempDir {
    spelling_also("")
}

/// The checkpoint with the bytes of a text instead of the last letters.
fn spelling_also(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_files(&checkpoint("llama"), folder.path());
    let mut bytes: Vec<String> = ["<s>", "<unk>", "</s>", "Ġ", "Ċ", "Ã", "©"].map(str::to_owned).to_vec();
    for byte in text.bytes() {
        // GPT-2 writes bytes from 0x7f to 0xa0 as characters from U+0121 on, and those above unchanged.
        let code = if byte <= 0xa0 { u32::from(byte) - 0x7f + 0x121 } else { byte.into() };
        let name = char::from_u32(code).unwrap().to_string();
        if !bytes.contains(&name) {
            bytes.push(name);
        }
    }
    let letters = (0x21..=0x7e_u8).map(|byte| char::from(byte).to_string());
    let vocabulary: serde_json::Map<String, Value> =
        bytes.into_iter().chain(letters).take(96).zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let by_bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [added(0, "<s>"), added(1, "<unk>"), added(2, "</s>")],
        "pre_tokenizer": by_bytes, "decoder": by_bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []},
    });
    let template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
    let config = json!({"eos_token": "</s>", "unk_token": "<unk>", "chat_template": template});
    for (name, value) in [("tokenizer.json", tokenizer), ("tokenizer_config.json", config)] {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

#[test]
fn text_goes_on_as_its_tokens_do_and_stops_where_it_is_told_to() {
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    run(async {
        let body =
            json!({"prompt": "Né 1", "max_tokens": 60, "temperature": 1.0, "seed": 3, "echo": true, "logprobs": 1});
        let answer = running.completion(&body).await;
        let choice = &answer["choices"][0];
        let text = choice["text"].as_str().unwrap();
        assert!(text.starts_with("Né 1"), "{text:?}");
        assert_eq!(answer["usage"]["prompt_tokens"], 5);
        // A token that is an incomplete character has a name.
        assert_eq!(json!(choice["logprobs"]["tokens"].as_array().unwrap()[..5]), json!(["N", "Ã", "©", " ", "1"]));
        let response = &text["Né 1".len()..];
        assert!(response.chars().count() >= 20, "{response:?}");
        let stop: String = response.chars().skip(9).take(2).collect();
        let expected = &response[..response.find(&stop).unwrap()];
        for stop in [json!(stop), json!(["nowhere", stop])] {
            let mut body = json!({"prompt": "Né 1", "max_tokens": 60, "temperature": 1.0, "seed": 3, "stop": stop});
            let answer = running.completion(&body).await;
            assert_eq!(answer["choices"][0]["text"], expected);
            assert_eq!(answer["choices"][0]["finish_reason"], "stop");
            body["stream"] = json!(true);
            let events = events(&running, "/v1/completions", &body).await;
            let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
            assert_eq!(text, expected);
        }
        // Cancelled sequences are not computed any further.
        until("sequences end", async || running.metric("lm_running_sequences").await == 0.0).await;
        // A prompt as tokens equals the prompt as text.
        let of = async |prompt: Value| {
            running.completion(&json!({"prompt": prompt, "temperature": 0})).await["choices"][0]["text"].clone()
        };
        let letter = |letter: u32| letter - 0x21 + 7;
        assert_eq!(of(json!("ab")).await, of(json!([letter(0x61), letter(0x62)])).await);
        let (status, answer) = running.post("/v1/completions", &json!({"prompt": ""})).await;
        assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("prompt")));
    });
}

#[test]
fn tokens_come_with_their_bytes_whether_or_not_these_are_whole_characters() {
    const TEXT: &str = "🤗🙂日本";
    let folder = spelling_also(TEXT);
    let running = Running::of(folder.path(), limits(), None);
    let joined = |list: &Value| -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = serde_json::from_value(list.clone()).unwrap();
        bytes.concat()
    };
    run(async {
        let body = json!({"prompt": TEXT, "echo": true, "logprobs": 2, "max_tokens": 0});
        let answer = running.completion(&body).await;
        let told = &answer["choices"][0]["logprobs"];
        assert_eq!(joined(&told["bytes"]), TEXT.as_bytes());
        assert_eq!(told["bytes"][0], json!([0xf0]));
        assert_eq!(told["text_offset"], json!([0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4]));
        let mut found = 0;
        for seed in 0..20 {
            let turns = json!([{"role": "user", "content": TEXT}]);
            let body = json!({"messages": turns, "max_tokens": 20, "seed": seed, "logprobs": true, "top_logprobs": 3});
            let (_, answer) = running.post("/v1/chat/completions", &body).await;
            let choice = &answer["choices"][0];
            let content = choice["logprobs"]["content"].as_array().unwrap();
            let said = content.iter().filter(|token| !token["token"].as_str().unwrap().starts_with('<'));
            let bytes = joined(&said.map(|token| token["bytes"].clone()).collect());
            if let Ok(text) = String::from_utf8(bytes) {
                assert_eq!(choice["message"]["content"], text);
                found += 1;
            }
            assert!(content.iter().all(|token| token["top_logprobs"][0]["bytes"].is_array()));
        }
        assert!(found > 0);
    });
}

#[test]
fn a_seed_that_is_drawn_is_told_and_makes_the_same_answer_again() {
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    run(async {
        for (route, mut body) in [
            ("/v1/completions", json!({"prompt": "ab", "max_tokens": 30})),
            ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "ab"}], "max_tokens": 30})),
        ] {
            let mut seeds = HashSet::new();
            for given in [Value::Null, json!(-1)] {
                body["seed"] = given;
                let (_, answer) = running.post(route, &body).await;
                let seed = answer["seed"].as_u64().unwrap();
                body["seed"] = json!(seed);
                let (_, again) = running.post(route, &body).await;
                assert_eq!((&again["choices"], again["seed"].as_u64()), (&answer["choices"], Some(seed)));
                body["stream"] = json!(true);
                assert_eq!(events(&running, route, &body).await[0]["seed"], seed);
                body["stream"] = Value::Null;
                seeds.insert(seed);
            }
            assert_eq!(seeds.len(), 2);
        }
    });
}

#[test]
fn special_tokens_are_no_text_and_end_an_answer_that_is_to_stop_at_them() {
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    run(async {
        let prompts: Vec<[u32; 2]> = (10..26).map(|letter| [letter, letter + 1]).collect();
        let mut body = json!({"prompt": prompts, "max_tokens": 60, "temperature": 1.0, "seed": 5, "logprobs": 0});
        let words =
            |choice: &Value| -> Vec<String> { serde_json::from_value(choice["logprobs"]["tokens"].clone()).unwrap() };
        let whole = running.completion(&body).await;
        let is_special = |word: &String| ["<s>", "<unk>", "</s>"].contains(&word.as_str());
        let mut stopped = 0;
        body["stop"] = json!(["<s>"]);
        let cut = running.completion(&body).await;
        for (whole, cut) in whole["choices"].as_array().unwrap().iter().zip(cut["choices"].as_array().unwrap()) {
            let (whole, mut expected) = (words(whole), words(whole));
            if let Some(place) = whole.iter().position(|word| word == "<s>") {
                expected.truncate(place + 1);
                assert_eq!(cut["finish_reason"], "stop");
                stopped += 1;
            }
            assert_eq!(words(cut), expected);
            let text: String = expected.into_iter().filter(|word| !is_special(word)).collect();
            // Incomplete characters have names instead of text.
            if !text.contains(['Ã', '©']) {
                assert_eq!(cut["text"], text);
            }
        }
        assert!(stopped > 0, "{whole}");
    });
}

#[test]
fn a_conversation_goes_on_by_the_chat_template() {
    let folder = spelling();
    let running = Running::of(folder.path(), limits(), None);
    run(async {
        let turns =
            json!([{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
        let mut body =
            json!({"messages": turns, "max_tokens": 15, "temperature": 0, "logprobs": true, "top_logprobs": 2});
        let (status, answer) = running.post("/v1/chat/completions", &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let expected = json!({"prompt": "s:x\nu:hi\na:", "max_tokens": 15, "temperature": 0, "logprobs": 2});
        let expected = running.completion(&expected).await;
        let (found, expected) = (&answer["choices"][0], &expected["choices"][0]);
        assert_eq!(found["message"], json!({"role": "assistant", "content": expected["text"]}));
        assert_eq!(found["finish_reason"], expected["finish_reason"]);
        for (index, token) in found["logprobs"]["content"].as_array().unwrap().iter().enumerate() {
            assert_eq!(token["token"], expected["logprobs"]["tokens"][index]);
            close(
                &[token["logprob"].as_f64().unwrap()],
                &[expected["logprobs"]["token_logprobs"][index].as_f64().unwrap()],
                ROUNDING,
                "logprob",
            );
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
        }
        // A begun assistant message is continued.
        let begun = json!([turns[0], turns[1], {"role": "assistant", "content": "n"}]);
        let ask = json!({"messages": begun, "max_tokens": 15, "temperature": 0});
        let (_, answer) = running.post("/v1/chat/completions", &ask).await;
        let own = json!({"prompt": "s:x\nu:hi\na:n", "max_tokens": 15, "temperature": 0});
        assert_eq!(answer["choices"][0]["message"]["content"], running.completion(&own).await["choices"][0]["text"]);
        body["stream"] = json!(true);
        let events = events(&running, "/v1/chat/completions", &body).await;
        assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        let content = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        assert_eq!(json!(content.collect::<String>()), expected["text"]);
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], expected["finish_reason"]);
        // The default is as much as there is room for.
        let (_, answer) = running.post("/v1/chat/completions", &json!({"messages": turns, "temperature": 0})).await;
        let total = answer["usage"]["total_tokens"].as_u64().unwrap();
        assert!(total == 512 || answer["choices"][0]["finish_reason"] == "stop", "{answer}");
    });
}

#[test]
fn what_cannot_be_asked_is_refused_by_name() {
    let folder = spelling();
    let text = Running::of(folder.path(), limits(), None);
    let running = Running::tiny("mistral");
    let long = vec![5; 128];
    let completions = [
        (json!({"prompt": [1], "top_kk": 3}), "top_kk", "top_kk: unknown field"),
        (
            json!({}),
            "prompt",
            "prompt: expected text, token ids, or a list of texts or of lists of token ids, got nothing",
        ),
        (json!({"prompt": []}), "prompt", "got []"),
        (
            json!({"prompt": [[1], []]}),
            "prompt[1]",
            "expected a token, as the model has no bos_token to begin with, got nothing",
        ),
        (json!({"prompt": [[1], [3, -1]]}), "prompt[1][1]", "prompt[1][1]: expected a token id, got -1"),
        (
            json!({"prompt": [1, 96]}),
            "prompt",
            "prompt: expected token ids below 96, the size of the model's vocabulary, got 96",
        ),
        (json!({"prompt": ["a", 3]}), "prompt[1]", "prompt[1]: expected text or token ids, got 3"),
        (json!({"prompt": "a"}), "prompt", "as there is no tokenizer.json to encode text"),
        (json!({"prompt": long}), "prompt", "prompt: expected at most 127 tokens, as at least one follows, got 128"),
        (
            json!({"prompt": long[..100], "max_tokens": 29}),
            "max_tokens",
            "max_tokens: expected at most 28 after 100 tokens of the prompt, as the model's max_position_embeddings is 128, got 29",
        ),
        (
            json!({"prompt": [1], "max_tokens": -1}),
            "max_tokens",
            "max_tokens: expected a whole number of at least 0, got -1",
        ),
        (
            json!({"prompt": [1], "temperature": -0.5}),
            "temperature",
            "temperature: expected a number of at least 0, got -0.5",
        ),
        (json!({"prompt": [1], "temperature": "hot"}), "temperature", "got \"hot\""),
        (json!({"prompt": [1], "top_p": 0}), "top_p", "top_p: expected greater than 0, at most 1, got 0"),
        (json!({"prompt": [1], "temperature": 0, "top_p": 1.5}), "top_p", "got 1.5"),
        (json!({"prompt": [1], "logprobs": 6}), "logprobs", "logprobs: expected at most 5, got 6"),
        (json!({"prompt": [1], "n": 2}), "n", "n: expected 1, got 2"),
        (json!({"prompt": [1], "presence_penalty": 0.5}), "presence_penalty", "expected 0, got 0.5"),
        (json!({"prompt": [1], "stop": [""]}), "stop", "each of 1 to 1024 bytes, got an empty one"),
        (json!({"prompt": [1], "stop": ["a".repeat(1025)]}), "stop", "each of 1 to 1024 bytes, got one of 1025 bytes"),
        (json!({"prompt": [1], "stop": vec!["a"; 17]}), "stop", "expected text, or a list of at most 16 texts"),
        (json!({"prompt": [1], "stop": 3}), "stop", "got 3"),
        (
            json!({"prompt": [1], "stream_options": {"include_usage": true}}),
            "stream_options",
            "expected nothing without stream",
        ),
        (
            json!({"prompt": [1], "stream": true, "stream_options": {"include_use": true}}),
            "stream_options.include_use",
            "unknown field",
        ),
        (
            json!({"prompt": [1], "seed": -3}),
            "seed",
            "expected a whole number of at least 0, or -1 for a random one, got -3",
        ),
    ];
    let turn = |role: &str, content: Value| json!([{"role": role, "content": content}]);
    let chats = [
        (json!({}), "messages", "messages: expected a list of messages, at least one, got nothing"),
        (
            json!({"messages": turn("boss", json!("a"))}),
            "messages[0].role",
            "expected one of system, developer, user, assistant, tool, got \"boss\"",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a", "weight": 1}]}),
            "messages[0].weight",
            "messages[0].weight: unknown field",
        ),
        (
            json!({"messages": turn("user", json!("a")), "top_logprobs": 1}),
            "top_logprobs",
            "expected nothing without logprobs, got 1",
        ),
        (
            json!({"messages": turn("user", json!("a")), "max_tokens": 1, "max_completion_tokens": 1}),
            "max_completion_tokens",
            "nothing beside max_tokens",
        ),
        (json!({"messages": turn("user", json!("a".repeat(600)))}), "prompt", "expected at most 511 tokens"),
    ];
    run(async {
        for (running, route, cases) in
            [(&running, "completions", &completions[..]), (&text, "chat/completions", &chats)]
        {
            for (body, param, message) in cases {
                let (status, answer) = running.post(&format!("/v1/{route}"), body).await;
                let error = &answer["error"];
                assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
                assert_eq!(
                    (&error["param"], &error["type"]),
                    (&json!(param), &json!("invalid_request_error")),
                    "{body}: {answer}"
                );
                assert!(error["message"].as_str().unwrap().contains(message), "{body}: {answer}");
            }
        }
        let client = Client::new();
        for (body, message) in [("{\"prompt\": [1", "EOF while parsing"), ("[1]", "expected a JSON object, got [1]")] {
            let response = client
                .post(running.url("/v1/completions"))
                .header("Content-Type", "application/json")
                .body(body)
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            let answer: Value = response.json().await.unwrap();
            assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{answer}");
        }
        let response = client
            .post(running.url("/v1/completions"))
            .header("Content-Type", "application/json")
            .body("x".repeat((1 << 16) + 1))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let (status, answer) = running.post("/v1/completions", &json!({"prompt": [1], "model": "huge"})).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("model_not_found")));
        let (status, answer) = running.post("/v2/completions", &json!({})).await;
        assert_eq!(
            (status, &answer["error"]["message"]),
            (StatusCode::NOT_FOUND, &json!("/v2/completions: no such route"))
        );
        let response = reqwest::get(running.url("/v1/completions")).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        // After all these requests the server still answers.
        assert_eq!(running.text("/health").await, r#"{"status":"ok"}"#);
        let models: Value = serde_json::from_str(&running.text("/v1/models").await).unwrap();
        assert_eq!(models["data"][0]["id"], "tiny");
        running
            .completion(&json!({"model": "tiny", "prompt": [1], "user": "me", "n": 1, "top_p": 1, "temperature": 0}))
            .await;
        let text = running.text("/metrics").await;
        let line = "lm_requests_total{route=\"/v1/completions\",status=\"200\"} 1";
        assert!(text.lines().any(|found| found == line), "{text}");
    });
}

/// A server of a model that does not end a response within the duration of a test.
fn endless(limits: Limits) -> (TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let source = checkpoint("llama");
    std::fs::copy(source.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(source.join("config.json")).unwrap()).unwrap();
    config["eos_token_id"] = Value::Null;
    config["max_position_embeddings"] = json!(1 << 17);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let limits = Limits { cache_tokens: 1 << 18, max_tokens: 1 << 16, ..limits };
    let running = Running::of(folder.path(), limits, None);
    (folder, running)
}

fn long(stream: bool) -> Value {
    json!({"prompt": [3, 4, 5], "max_tokens": 1 << 16, "temperature": 0, "stream": stream})
}

#[test]
fn more_than_the_queue_holds_is_told_to_come_later_and_who_hangs_up_makes_room() {
    let (_folder, running) = endless(Limits { queue: 2, batch: 1, ..limits() });
    run(async {
        let client = Client::new();
        let ask = || client.post(running.url("/v1/completions")).json(&long(true)).send();
        // One prompt that is in flight and one that is queued.
        let (one, other) = (ask().await.unwrap(), ask().await.unwrap());
        let refused = ask().await.unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        let answer: Value = refused.json().await.unwrap();
        assert_eq!(answer["error"]["type"], "rate_limit_error");
        drop((one, other));
        until("places are free", async || running.metric("lm_queued_prompts").await == 0.0).await;
        running.completion(&json!({"prompt": [[1], [2]], "max_tokens": 2})).await;
        let (status, answer) = running.post("/v1/completions", &json!({"prompt": [[1], [2], [3]]})).await;
        let message = json!("prompt: expected at most 2 prompts, got 3");
        assert_eq!((status, &answer["error"]["message"]), (StatusCode::BAD_REQUEST, &message));
    });
}

#[test]
fn a_client_that_hangs_up_ends_its_sequence() {
    let (_folder, running) = endless(limits());
    run(async {
        for stream in [true, false, true, false] {
            let text = long(stream).to_string();
            let mut connection = TcpStream::connect(running.address).unwrap();
            let head = format!(
                "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            connection.write_all((head + &text).as_bytes()).unwrap();
            until("it begins", async || running.metric("lm_running_sequences").await == 1.0).await;
            drop(connection);
            until("it ends", async || running.metric("lm_running_sequences").await == 0.0).await;
        }
        let generated = running.metric("lm_generated_tokens_total").await;
        assert!(generated < f64::from(1 << 16), "{generated}");
    });
}

#[test]
fn who_sends_slowly_is_sent_away_and_others_are_answered_meanwhile() {
    let limits = Limits { request: Duration::from_millis(400), ..limits() };
    let running = Running::of(&checkpoint("llama"), limits, None);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let head = scope.spawn(|| running.raw("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"));
        let body = scope
            .spawn(|| running.raw("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"prompt\""));
        run(async { _ = running.completion(&json!({"prompt": [1], "max_tokens": 2})).await });
        assert!(!head.join().unwrap().contains("200 OK"));
        let answer = body.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("the request did not arrive within 0.4 s"), "{answer}");
    });
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(running.raw("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn an_answer_that_takes_too_long_is_given_up() {
    let (_folder, running) = endless(Limits { answer: Duration::from_millis(100), ..limits() });
    run(async {
        let (status, answer) = running.post("/v1/completions", &long(false)).await;
        assert_eq!((status, &answer["error"]["type"]), (StatusCode::GATEWAY_TIMEOUT, &json!("server_error")));
        until("it ends", async || running.metric("lm_running_sequences").await == 0.0).await;
    });
}

#[test]
fn a_key_is_asked_for_on_every_route_of_the_api() {
    let running = Running::of(&checkpoint("llama"), limits(), Some("sesame"));
    run(async {
        let client = Client::new();
        let body = json!({"prompt": [1], "max_tokens": 1});
        for (key, status) in [(None, 401), (Some("sesame2"), 401), (Some(""), 401), (Some("sesame"), 200)] {
            let with = |request: reqwest::RequestBuilder| match key {
                Some(key) => request.header("Authorization", format!("Bearer {key}")),
                None => request,
            };
            let models = with(client.get(running.url("/v1/models"))).send().await.unwrap();
            let completion = with(client.post(running.url("/v1/completions")).json(&body)).send().await.unwrap();
            let chat = with(client.post(running.url("/v1/chat/completions")).json(&json!({}))).send().await.unwrap();
            assert_eq!((models.status().as_u16(), completion.status().as_u16()), (status, status), "{key:?}");
            assert_eq!(chat.status().as_u16(), if status == 200 { 400 } else { 401 });
        }
        assert_eq!(reqwest::get(running.url("/health")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn settings_that_cannot_be_are_refused_before_a_model_is_read() {
    let model = checkpoint("llama").display().to_string();
    let refused = |arguments: &[&str], expected: &str| {
        fails(&[&["serve", "--model", &model], arguments].concat(), expected);
    };
    refused(
        &["--host", "0.0.0.0"],
        "host: expected a loopback address such as 127.0.0.1, unless an API key is set, got 0.0.0.0",
    );
    refused(&["--api-key", ""], "api_key: expected a non-empty key, got \"\"");
    refused(&["--batch", "0"], "batch: expected at least 1, got 0");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&["--port", &port], &format!("127.0.0.1:{port}: "));
}

#[test]
fn a_signal_lets_what_is_on_its_way_end_and_takes_nothing_more() {
    let model = checkpoint("llama").display().to_string();
    let mut server = Command::new(env!("CARGO_BIN_EXE_lm"))
        .args(["serve", "--model", &model, "--port", "0", "--name", "tiny"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("serving at ").unwrap().to_owned();
    run(async {
        let client = Client::new();
        let body = json!({"prompt": [3, 4, 5], "max_tokens": 400, "temperature": 2.0, "seed": 4, "stream": true});
        let mut answer = client.post(format!("{url}/completions")).json(&body).send().await.unwrap();
        let first = answer.chunk().await.unwrap().unwrap();
        let signalled = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
        assert!(signalled.success());
        let mut text = String::from_utf8(first.to_vec()).unwrap();
        while let Some(more) = answer.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&more).unwrap());
        }
        assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
        assert!(text.contains("\"finish_reason\":\"length\"") || text.contains("\"finish_reason\":\"stop\""), "{text}");
        let status = server.wait().unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(client.get(format!("{url}/models")).send().await.is_err());
    });
}
