//! The program as a user types it.

use std::path::Path;

use lm::checkpoint::config::{Dtype, read_config};
use lm::transformer::model::shapes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{MODEL, adapters, fails, lines, metrics, same, succeeds, two_stages, write};
use crate::oracle::{answers, checkpoint, close, ids, numbers, oracles};

/// A folder with a recipe of two stages on a tiny checkpoint, and the recipe's path.
fn recipe(more: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = two_stages(&folder, "llama", more);
    (folder, path)
}

fn losses(out: &Path) -> Vec<f64> {
    metrics(out).iter().map(|row| row["loss"].as_f64().unwrap()).collect()
}

/// Runs the recipe with its output in a new folder.
fn run(folder: &TempDir, recipe: &str, name: &str, assignments: &[&str]) -> std::path::PathBuf {
    let out = folder.path().join(name);
    let mut arguments = vec!["train", recipe, "--out", out.to_str().unwrap()];
    arguments.extend(assignments.iter().flat_map(|assignment| ["--set", assignment]));
    succeeds(&arguments);
    out
}

#[test]
fn stages_learn_what_held_out_data_show() {
    let (folder, recipe) = recipe("");
    let out = run(&folder, &recipe, "out", &["optimizer={ name = \"adamw\" }", "steps=12"]);
    let rows = metrics(&out);
    let held_out = |stage: u64, metric: &str| -> Vec<f64> {
        let rows = rows.iter().filter(|row| row["held_out"] == true && row["stage"] == stage);
        rows.map(|row| row[metric].as_f64().unwrap()).collect()
    };
    let loss = held_out(0, "loss");
    assert_eq!(loss.len(), 5);
    assert!(loss[4] < loss[0], "{loss:?}");
    // At its beginning the second stage equals its own reference, to the last bit.
    assert_eq!(held_out(1, "loss")[0], std::f64::consts::LN_2);
    let accuracy = held_out(1, "rewards/accuracies");
    assert!(accuracy[0] == 0.0 && accuracy[4] > 0.5, "{accuracy:?}");
    // The written model is the one that was measured.
    let data = folder.path().join("held_out.jsonl");
    let scored = succeeds(&["score", "--model", out.join("model").to_str().unwrap(), "--data", data.to_str().unwrap()]);
    let chosen: Vec<f64> = scored
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["chosen"]["sum"].as_f64().unwrap())
        .collect();
    let mean = chosen.iter().sum::<f64>() / chosen.len() as f64;
    close(&[mean], &[*held_out(1, "log_prob/chosen").last().unwrap()], 1e-5, "log_prob/chosen");
}

#[test]
fn the_same_recipe_gives_the_same_bytes() {
    let (folder, recipe) = recipe("seed = 3");
    let (first, second) = (run(&folder, &recipe, "a", &[]), run(&folder, &recipe, "b", &[]));
    same(&first, &second, &MODEL);
    // The resolved recipe is itself a recipe, and equal to the first.
    let resolved = first.join("recipe.toml");
    let again = run(&folder, resolved.to_str().unwrap(), "c", &[]);
    assert_eq!(losses(&again), losses(&first));
    let other = run(&folder, &recipe, "d", &["seed=4"]);
    assert_ne!(losses(&other), losses(&first));
}

fn held_out_losses(out: &Path) -> Vec<f64> {
    let rows = metrics(out).into_iter().filter(|row| row["held_out"] == true);
    rows.map(|row| row["loss"].as_f64().unwrap()).collect()
}

#[test]
fn adapters_are_trained_saved_applied_and_merged() {
    let (folder, _) = recipe("");
    let recipe = adapters(&folder, "dpo");
    let out = run(&folder, &recipe, "out", &[]);
    let loss = held_out_losses(&out);
    assert!(loss[0] == std::f64::consts::LN_2 && loss[1] < loss[0], "{loss:?}");
    assert!(!out.join("model").exists());
    let adapter = out.join("adapter").display().to_string();
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["peft_type"], &config["r"], &config["lora_alpha"]), (&json!("LORA"), &json!(4), &json!(8)));

    // The adapted model and the merged one have the measured log-probabilities.
    let base = checkpoint("llama").display().to_string();
    let merged = folder.path().join("merged").display().to_string();
    succeeds(&["merge", "--model", &base, "--adapter", &adapter, "--out", &merged]);
    let data = folder.path().join("held_out.jsonl").display().to_string();
    let sums = |arguments: &[&str]| -> Vec<f64> {
        let printed = succeeds(&[&["score", "--data", &data], arguments].concat());
        let sums = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        sums.flat_map(|line| ["chosen", "rejected"].map(|side| line[side]["sum"].as_f64().unwrap())).collect()
    };
    let adapted = sums(&["--model", &base, "--adapter", &adapter]);
    close(&sums(&["--model", &merged]), &adapted, 1e-5, "merged");
    let mean = adapted.iter().step_by(2).sum::<f64>() / (adapted.len() / 2) as f64;
    let measured = metrics(&out).last().unwrap()["log_prob/chosen"].as_f64().unwrap();
    close(&[mean], &[measured], 1e-5, "log_prob/chosen");
    let prompts = write(&folder, "prompts.jsonl", &lines([json!({"prompt_ids": [5, 6, 7]})]));
    let ids_of = |arguments: &[&str]| {
        let printed = succeeds(&[&["generate", "--data", &prompts, "--max-tokens", "6"], arguments].concat());
        ids(&serde_json::from_str::<Value>(&printed).unwrap()["response_ids"])
    };
    assert_eq!(ids_of(&["--model", &merged]), ids_of(&["--model", &base, "--adapter", &adapter]));

    // Another run continues the adapters' training, and has them as its reference.
    let on = ["lora={ adapter = \"", &adapter, "\" }"].concat();
    let further = run(&folder, &recipe, "further", &[&on]);
    assert_eq!(held_out_losses(&further)[0], std::f64::consts::LN_2);
    close(&[metrics(&further)[0]["log_prob/chosen"].as_f64().unwrap()], &[measured], 1e-5, "log_prob/chosen");

    let out = out.display().to_string();
    fails(&["train", &recipe, "--out", &out], "out/adapter: the trained model exists already");
    fails(&["merge", "--model", &base, "--adapter", &adapter, "--out", &merged], "merged: ");
    let qwen = checkpoint("qwen2").display().to_string();
    fails(&["score", "--data", &data, "--model", &qwen, "--adapter", &adapter], "expected the shape");
    fails(&["score", "--data", &data, "--model", &base, "--adapter", &base], "adapter_config.json: No such file");
    let elsewhere = folder.path().join("elsewhere").display().to_string();
    fails(&["train", &recipe, "--out", &elsewhere, "--set", "lora.rank=0"], "lora: rank: expected at least 1, got 0");
}

#[test]
fn wherever_the_reference_of_adapters_comes_from_it_says_the_same() {
    let (folder, _) = recipe("");
    let recipe = adapters(&folder, "tdpo");
    let expected = run(&folder, &recipe, "base", &[]);
    let again = run(&folder, &recipe, "again", &[]);
    same(&expected, &again, &["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]);
    for keeping in ["cache", "hold"] {
        let found = run(&folder, &recipe, keeping, &[&format!("reference={keeping}")]);
        close(&losses(&found), &losses(&expected), 1e-4, keeping);
    }
    let narrow = run(&folder, &recipe, "narrow", &["dtype=bfloat16"]);
    assert_eq!(held_out_losses(&narrow)[0], std::f64::consts::LN_2);
    let found = run(&folder, &recipe, "seed", &["seed=1", "order=given"]);
    assert_ne!(losses(&found), losses(&expected));

    let inspect = |more: &[&str]| -> Value {
        let printed = succeeds(&[&["inspect", "--recipe", &recipe, "--json"], more].concat());
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    let found = inspect(&[]);
    // Two layers of q (32 to 48), k and v (32 to 24), o (48 to 32), gate and up (32 to 48), down (48 to 32).
    let trained = 2 * 4 * (80 + 56 + 56 + 80 + 80 + 80 + 80);
    assert_eq!((found["trained"].as_u64(), found["stages"][0]["moments"].as_u64()), (Some(trained), Some(trained * 4)));
    assert_eq!(found["stages"][0]["reference"], 0);
    assert_eq!(inspect(&["--set", "reference=hold"])["stages"][0]["reference"].as_u64(), Some(trained * 4));
}

#[test]
fn how_a_step_is_computed_changes_its_losses_by_rounding_only() {
    let (folder, recipe) = recipe("");
    let expected = losses(&run(&folder, &recipe, "a", &[]));
    for (name, assignment) in [
        ("b", "micro_batch=3"),
        ("c", "packing=padded"),
        ("d", "activation_checkpointing=true"),
        ("e", "reference=hold"),
    ] {
        close(&losses(&run(&folder, &recipe, name, &[assignment])), &expected, 1e-3, assignment);
    }
}

#[test]
fn what_the_reference_says_is_kept_and_found_again() {
    let (folder, recipe) = recipe("");
    let cache = folder.path().join("cache").display().to_string();
    let assignment = format!("cache={cache}");
    let first = run(&folder, &recipe, "a", &[&assignment]);
    let files = || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let kept = files();
    assert_eq!(kept.len(), 1);
    let second = run(&folder, &recipe, "b", &[&assignment]);
    assert_eq!((files(), losses(&second)), (kept.clone(), losses(&first)));
    // Another model has its own cached reference.
    run(&folder, &recipe, "c", &[&assignment, "learning_rate=1e-4"]);
    assert_eq!(files().len(), 2);
    std::fs::write(&kept[0], b"damaged").unwrap();
    let out = folder.path().join("d").display().to_string();
    fails(&["train", &recipe, "--out", &out, "--set", &assignment], "delete the file to have it computed again");
}

#[test]
fn sixteen_bits_train_with_masters_and_with_random_rounding() {
    let (folder, recipe) = recipe("dtype = \"bfloat16\"");
    for precision in ["masters", "stochastic"] {
        let out =
            run(&folder, &recipe, precision, &[&format!("precision={precision}"), "steps=12", "learning_rate=3e-3"]);
        let held_out: Vec<_> =
            metrics(&out).into_iter().filter(|row| row["held_out"] == true && row["stage"] == 0).collect();
        let loss = |row: &Value| row["loss"].as_f64().unwrap();
        assert!(loss(held_out.last().unwrap()) < loss(&held_out[0]), "{precision}");
        let config = std::fs::read_to_string(out.join("model/config.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["dtype"], "bfloat16");
    }
}

#[test]
fn labelled_responses_and_groups_with_rewards_train_too() {
    let folder = tempfile::tempdir().unwrap();
    let labelled = write(
        &folder,
        "labelled.jsonl",
        &lines(
            (0..8_u32)
                .map(|index| json!({"prompt_ids": [5, 6], "response_ids": [7 + index, 8], "label": index % 2 == 0})),
        ),
    );
    let groups = write(
        &folder,
        "groups.jsonl",
        &lines((0..4_u32).map(|index| {
            json!({"prompt_ids": [5 + index], "completions_ids": [[9], [10, 11], [12]], "rewards": [1.0, 0.0, 0.5]})
        })),
    );
    for (method, data) in
        [("kto", &labelled), ("bco", &labelled), ("grpo", &groups), ("rloo", &groups), ("cispo", &groups)]
    {
        let text = format!(
            "model = \"{}\"\nbatch = 4\nsteps = 3\n[[stage]]\nmethod = {{ name = \"{method}\" }}\ndata = [{{ path = \"{data}\" }}]\n",
            checkpoint("qwen2").display()
        );
        let recipe = write(&folder, &format!("{method}.toml"), &text);
        let out = run(&folder, &recipe, method, &[]);
        assert!(losses(&out).iter().all(|loss| loss.is_finite()), "{method}");
        assert!(metrics(&out)[1]["gradient_norm"].as_f64().unwrap() > 0.0, "{method}");
    }
}

#[test]
fn groups_are_learnt_from_with_given_advantages_and_the_samplers_log_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("qwen2").display().to_string();
    let group = |prompt: u32| json!({"prompt_ids": [prompt], "completions_ids": [[9], [10, 11]], "rewards": [1, 0]});
    let groups = [5, 6].map(group);
    let data = write(&folder, "scored.jsonl", &lines(groups.clone()));
    let scored = succeeds(&["score", "--model", &model, "--data", &data]);
    let scored: Vec<Value> = scored.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The log-probabilities of a policy under which each token is e^shift times as probable.
    let log_prob = |record: usize, shift: f64| -> Value {
        let responses = scored[record]["completions"].as_array().unwrap().iter();
        let shifted = |score: &Value| numbers(&score["log_prob"]).iter().map(|log_prob| log_prob + shift).collect();
        responses.map(shifted).collect::<Vec<Vec<f64>>>().into()
    };
    let loss = |name: &str, method: &str, columns: &dyn Fn(usize) -> Vec<(&'static str, Value)>| {
        let groups = groups.iter().enumerate().map(|(index, group)| {
            let mut group = group.clone();
            group
                .as_object_mut()
                .unwrap()
                .extend(columns(index).into_iter().map(|(name, column)| (name.to_owned(), column)));
            group
        });
        let data = write(&folder, &format!("{name}.jsonl"), &lines(groups));
        let text = format!(
            "model = \"{model}\"\nbatch = 2\nmicro_batch = 1\nsteps = 1\n[[stage]]\nmethod = {{ {method} }}\n\
             data = [{{ path = \"{data}\" }}]\n"
        );
        let recipe = write(&folder, &format!("{name}.toml"), &text);
        losses(&run(&folder, &recipe, name, &[]))[0]
    };
    let given = "name = \"policy_gradient\", advantage = \"given\"";
    // A mean over responses of the mean advantage: of the first 1, of the second 0.5.
    let advantage = ("advantage", json!([1.0, [2.0, -1.0]]));
    let on_policy = loss("on_policy", given, &|_| vec![advantage.clone()]);
    close(&[on_policy], &[-0.75], 1e-5, "the policy is taken for the one that sampled");
    let ratio = 1.1_f64;
    let stale =
        loss("stale", given, &|record| vec![advantage.clone(), ("behaviour_log_prob", log_prob(record, -ratio.ln()))]);
    close(&[stale], &[-0.75 * ratio], 1e-5, "each token is 1.1 times as probable as it was");
    let corrected = loss("corrected", &format!("{given}, correction = \"truncate_token\""), &|record| {
        vec![advantage.clone(), ("rollout_log_prob", log_prob(record, -(1.5_f64.ln())))]
    });
    close(&[corrected], &[-0.75 * 1.5], 1e-5, "the sampler finds each token 1.5 times less probable than the trainer");
    let abstaining = loss("abstaining", "name = \"gdpo\"", &|_| vec![("rewards", json!([[1, null], [0, 0.5]]))]);
    assert!(abstaining.is_finite());
}

#[test]
fn a_group_without_what_the_method_reads_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = |parameters: &str| {
        let text = format!(
            "model = \"{}\"\nsteps = 1\n[[stage]]\nmethod = {{ name = \"policy_gradient\", {parameters} }}\n\
             data = [{{ path = \"{}\" }}]\n",
            checkpoint("qwen2").display(),
            folder.path().join("groups.jsonl").display()
        );
        write(&folder, "recipe.toml", &text)
    };
    let out = folder.path().join("out");
    let refused = |parameters: &str, second: Value, expected: &str| {
        let good = json!({"prompt_ids": [5], "completions_ids": [[9], [10, 11]], "rewards": [1, 0], "advantage": [1, 0],
            "rollout_log_prob": [[-1], [-1, -1]]});
        write(&folder, "groups.jsonl", &lines([good, second]));
        fails(&["train", &recipe(parameters), "--out", out.to_str().unwrap()], expected);
    };
    let second = json!({"prompt_ids": [5], "completions_ids": [[9], [10, 11]], "rewards": [1, 0]});
    let each = "expected 1 numbers, one for each token of a response, as the method reads them, got 0";
    refused("advantage = \"given\"", second.clone(), &format!("groups.jsonl:2: advantage: {each}"));
    refused("correction = \"icepop\"", second.clone(), &format!("groups.jsonl:2: rollout_log_prob: {each}"));
    let mut short = second.clone();
    short["rollout_log_prob"] = json!([[-1], [-1]]);
    refused(
        "correction = \"icepop\"",
        short,
        "groups.jsonl:2: rollout_log_prob[1]: expected 2 numbers, one for each token of completions_ids[1], got 1",
    );
    let mut several = second;
    several["rewards"] = json!([[1, 2], [0, 1]]);
    refused(
        "advantage = \"group_mean\"",
        several,
        "groups.jsonl:2: rewards: expected 1 for each response, like the method or an earlier record, got 2",
    );
}

/// A model without a chat template, like base models, with a tiny tokenizer.
fn base(folder: &TempDir) -> String {
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let mut text: Value =
            serde_json::from_str(&std::fs::read_to_string(oracles().join("tokenizers/llama").join(name)).unwrap())
                .unwrap();
        text.as_object_mut().unwrap().remove("chat_template");
        std::fs::write(source.join(name), text.to_string()).unwrap();
    }
    let config = std::fs::read_to_string(checkpoint("llama").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["vocab_size"] = json!(476);
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    tch::manual_seed(0);
    let tensors: Vec<_> = shapes(&read_config(&source).unwrap())
        .into_iter()
        .map(|shape| (tch::Tensor::randn(&shape.size[..], (tch::Kind::Float, tch::Device::Cpu)) * 0.1, shape))
        .collect();
    let parameters: Vec<_> = tensors.iter().map(|(tensor, shape)| (shape.clone(), tensor)).collect();
    let target = folder.path().join("base");
    lm::checkpoint::folder::write(&target, &source, &parameters, Dtype::Float32).unwrap();
    target.display().to_string()
}

#[test]
fn a_base_model_learns_by_the_recipe_s_chat_template_and_has_it_then() {
    let folder = tempfile::tempdir().unwrap();
    let turns = |said: &str| json!([{"role": "user", "content": "hello"}, {"role": "assistant", "content": said}]);
    let data = write(&folder, "data.jsonl", &lines(["you", "there"].map(|said| json!({"messages": turns(said)}))));
    let text = format!(
        "model = \"{}\"\nbatch = 2\nsteps = 2\n[[stage]]\nmethod = {{ name = \"sft\" }}\ndata = [{{ path = \"{data}\" }}]\n",
        base(&folder)
    );
    let recipe = write(&folder, "recipe.toml", &text);
    let out = folder.path().join("out");
    fails(&["train", &recipe, "--out", &out.display().to_string()], "as the model has no chat template, got messages");
    // Chat template of the paper's recipes.
    let template = oracles().join("../../experiments/lm/paper/chat_template.jinja");
    let out = run(&folder, &recipe, "out", &[&format!("chat_template={}", template.display())]);
    let model = out.join("model");
    assert_eq!(
        std::fs::read_to_string(model.join("chat_template.jinja")).unwrap(),
        std::fs::read_to_string(&template).unwrap()
    );
    let scored = succeeds(&["score", "--model", &model.display().to_string(), "--data", &data]);
    let ends: Vec<_> = scored
        .lines()
        .map(|line| {
            let score: Value = serde_json::from_str(line).unwrap();
            ids(&score["response_ids"]).pop()
        })
        .collect();
    // A response ends with the end of the text and nothing after it.
    assert_eq!(ends, [Some(2), Some(2)]);
}

#[test]
fn every_recipe_of_the_project_is_one() {
    let folder = oracles().join("../../experiments/lm");
    let mut recipes = 0;
    for place in ["paper", "smollm2"] {
        for entry in std::fs::read_dir(folder.join(place)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                succeeds(&["train", &path.display().to_string(), "--print"]);
                recipes += 1;
            }
        }
    }
    assert_eq!(recipes, 10);
}

#[test]
fn scores_of_ids_need_no_tokenizer_and_agree_with_transformers() {
    let folder = tempfile::tempdir().unwrap();
    for answer in answers("checkpoints.json")["checkpoints"].as_array().unwrap() {
        let case = &answer["sequences"][2];
        let ids = ids(&case["ids"]);
        let line = json!({"prompt_ids": ids[..1], "response_ids": ids[1..]});
        let data = write(&folder, "data.jsonl", &lines([line.clone(), line]));
        let name = answer["name"].as_str().unwrap();
        let model = checkpoint(name).display().to_string();
        let out = folder.path().join("scores.jsonl").display().to_string();
        let printed = succeeds(&["score", "--model", &model, "--data", &data]);
        succeeds(&["score", "--model", &model, "--data", &data, "--out", &out]);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), printed);
        for line in printed.lines() {
            let score: Value = serde_json::from_str(line).unwrap();
            close(&numbers(&score["log_prob"]), &numbers(&case["log_prob"]), 1e-5, name);
            let sum: f64 = numbers(&score["log_prob"]).iter().sum();
            assert_eq!((score["response_ids"].clone(), score["sum"].as_f64()), (json!(ids[1..]), Some(sum)));
        }
    }
}

#[test]
fn scores_of_a_real_model_agree_with_transformers() {
    let Some(model) = std::env::var_os("SMOLLM2") else {
        eprintln!("skipped: SMOLLM2 is not the folder of SmolLM2-135M-Instruct");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let answers = answers("smollm2_scores.json");
    let pairs = answers["pairs"].as_array().unwrap();
    let responses: Vec<&Value> = pairs.iter().flat_map(|pair| [&pair["chosen"], &pair["rejected"]]).collect();
    let line =
        |response: &&Value| json!({"prompt_ids": response["prompt_ids"], "response_ids": response["response_ids"]});
    let data = write(&folder, "data.jsonl", &lines(responses.iter().map(line)));
    let printed = succeeds(&["score", "--model", model.to_str().unwrap(), "--data", &data]);
    assert_eq!(printed.lines().count(), responses.len());
    for (line, response) in printed.lines().zip(responses) {
        let score: Value = serde_json::from_str(line).unwrap();
        close(&numbers(&score["log_prob"]), &numbers(&response["log_prob"]), 1e-4, "SmolLM2");
    }
}

#[test]
fn greedy_continuations_agree_with_transformers() {
    let folder = tempfile::tempdir().unwrap();
    for answer in answers("checkpoints.json")["checkpoints"].as_array().unwrap() {
        let data = write(&folder, "prompts.jsonl", &lines([json!({"prompt_ids": answer["sequences"][1]["ids"]})]));
        let model = checkpoint(answer["name"].as_str().unwrap()).display().to_string();
        let printed = succeeds(&["generate", "--model", &model, "--data", &data, "--max-tokens", "8"]);
        let found: Value = serde_json::from_str(&printed).unwrap();
        let (found, expected) = (ids(&found["response_ids"]), ids(&answer["greedy"]));
        // Here the model's end token ends the response, in the other run it does not.
        assert!(expected.starts_with(&found), "{found:?} {expected:?}");
    }
}

#[test]
fn inspection_tells_shape_and_memory() {
    let (_folder, recipe) = recipe("");
    let text = succeeds(&["inspect", "--recipe", &recipe]);
    assert!(text.starts_with("LlamaForCausalLM: ") && text.contains("tdpo fits: "), "{text}");
    let found: Value = serde_json::from_str(&succeeds(&["inspect", "--recipe", &recipe, "--json"])).unwrap();
    let bytes = std::fs::metadata(checkpoint("llama").join("model.safetensors")).unwrap().len();
    let weights = found["stages"][0]["weights"].as_u64().unwrap();
    // The file has the same numbers in 32 bits, and its header.
    assert!(weights < bytes && bytes - weights < 5000, "{weights} {bytes}");
}

#[test]
fn what_is_wrong_is_named_before_anything_is_trained() {
    let (folder, recipe) = recipe("");
    let out = folder.path().join("out").display().to_string();
    let refused =
        |assignment: &str, message: &str| fails(&["train", &recipe, "--out", &out, "--set", assignment], message);
    refused("batch=0", "stage[0].batch: expected at least 1, got 0");
    refused("model=/no/such/folder", "model \"/no/such/folder\": expected an existing folder, or a model of the hub");
    refused("device=gpu", "device \"gpu\": expected cpu, cuda or cuda:INDEX");
    refused("stage.1.method.name=pdo", "recipe.toml: stage[1].method: pdo: unknown method; allowed: sft, dpo");
    refused("stage.0.data.0.learnt=last", "pairs.jsonl:1: record: expected one of demonstrations");
    refused("max_length=2", "are more than max_length = 2");
    refused("stage.1.data.0.path=missing.jsonl", "missing.jsonl: No such file or directory");
    let strange =
        write(&folder, "strange.jsonl", &lines([json!({"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [96]})]));
    refused(&format!("stage.1.data.0.path={strange}"), "strange.jsonl:1: response: expected token ids below 96");
    let text = write(&folder, "text.jsonl", &lines([json!({"prompt": "a", "chosen": "b", "rejected": "c"})]));
    refused(&format!("stage.1.data.0.path={text}"), "as there is no tokenizer.json to encode text");
    assert!(!folder.path().join("out/model").exists());

    run(&folder, &recipe, "out", &["steps=1"]);
    fails(&["train", &recipe, "--out", &out], "out/model: the trained model exists already");
    fails(&["train", "nothing.toml", "--out", &out], "nothing.toml: No such file or directory");
    fails(
        &["score", "--model", &checkpoint("llama").display().to_string(), "--data", "data.txt"],
        "one of jsonl, json, jsonl.gz, json.gz, parquet",
    );
    fails(
        &["generate", "--model", &checkpoint("llama").display().to_string(), "--prompt", "hi"],
        "as there is no tokenizer.json",
    );
}

#[test]
fn records_that_are_too_long_are_skipped_where_the_recipe_says_so() {
    let (folder, recipe) = recipe("");
    let pairs = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    let long = json!({"prompt_ids": vec![7; 50], "chosen_ids": [8], "rejected_ids": [9]}).to_string() + "\n";
    let expected = losses(&run(&folder, &recipe, "a", &["max_length=40"]));
    write(&folder, "pairs.jsonl", &(long + &pairs));
    let out = folder.path().join("b").display().to_string();
    fails(&["train", &recipe, "--out", &out, "--set", "max_length=40"], "pairs.jsonl:1: 50 prompt tokens");
    assert_eq!(losses(&run(&folder, &recipe, "c", &["max_length=40", "invalid=skip"])), expected);
    let none = ["train", &recipe, "--out", &out, "--set", "max_length=2", "--set", "invalid=skip"];
    fails(
        &none,
        "pairs.jsonl: records: expected at least 1 that the method can learn from, got 0, as 13 were skipped:\n13 too long",
    );
}

#[test]
fn a_run_says_where_losses_and_accuracies_began_and_ended() {
    let (folder, recipe) = recipe("");
    let out = folder.path().join("out");
    let printed = succeeds(&["train", &recipe, "--out", out.to_str().unwrap()]);
    let rows = metrics(&out);
    let change = |stage: u64, held_out: bool, metric: &str| {
        let rows: Vec<_> = rows.iter().filter(|row| row["stage"] == stage && row["held_out"] == held_out).collect();
        let [first, last] = [rows[0], rows[rows.len() - 1]].map(|row| row[metric].as_f64().unwrap());
        format!("{first:.4} → {last:.4}")
    };
    let told: Vec<_> = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(told[0], "stage steps loss held-out loss held-out accuracy");
    assert_eq!(told[1], format!("1 ift 8 {} {}", change(0, false, "loss"), change(0, true, "loss")));
    let accuracy = change(1, true, "rewards/accuracies");
    let loss = [change(1, false, "loss"), change(1, true, "loss")].join(" ");
    assert_eq!(told[2], format!("2 tdpo 8 {loss} {accuracy}"));
    assert_eq!(told[3], format!("written: {}/model", out.display()));
    assert_eq!(succeeds(&["train", &recipe, "--out", out.to_str().unwrap(), "--resume"]), printed);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("llama").display().to_string();
    let link = folder.path().join("zero.jsonl");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    let pipe = folder.path().join("pipe.parquet");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, given) in [(&link, "a device"), (&pipe, "a pipe")] {
        let path = path.display().to_string();
        for command in ["score", "generate"] {
            fails(
                &[command, "--model", &model, "--data", &path],
                &format!("file: expected a regular file, got {given}"),
            );
        }
    }
}

/// On a machine with a GPU the same commands run there, so only machines without one can test this.
#[test]
fn cuda_where_there_is_none_is_a_clear_error() {
    if tch::utils::has_cuda() {
        eprintln!("skipped: this machine has a GPU");
        return;
    }
    fails(
        &["score", "--model", &checkpoint("llama").display().to_string(), "--data", "x.jsonl", "--device", "cuda"],
        "x.jsonl: No such file",
    );
    let folder = tempfile::tempdir().unwrap();
    let data = write(&folder, "data.jsonl", &lines([json!({"prompt_ids": [1], "response_ids": [2]})]));
    let model = checkpoint("llama").display().to_string();
    fails(&["score", "--model", &model, "--data", &data, "--device", "cuda"], "device \"cuda\": ");
}

#[test]
fn a_step_that_diverges_is_refused_and_no_model_is_written() {
    let (folder, recipe) = recipe("");
    let out = folder.path().join("out").display().to_string();
    fails(
        &["train", &recipe, "--out", &out, "--set", "learning_rate=1e30", "--set", "warmup_ratio=0"],
        "stage 0, step ",
    );
    assert!(!folder.path().join("out/model").exists());
    assert!(!metrics(&folder.path().join("out")).is_empty());
}

#[test]
fn results_are_compared_as_markdown_json_and_a_figure() {
    let folder = tempfile::tempdir().unwrap();
    let results = |score: f64| json!({"results": {"winogrande": {"acc,none": score, "acc_stderr,none": 0.0125}}});
    let (sft, ift) =
        (write(&folder, "sft.json", &results(0.5).to_string()), write(&folder, "b.json", &results(0.75).to_string()));
    let out = folder.path().join("out");
    let arguments = ["compare", &sft, &format!("ift={ift}"), "--out", &out.display().to_string()];
    let printed = succeeds(&arguments);
    assert!(printed.contains("| **75.00 ± 1.25** |"), "{printed}");
    assert_eq!(std::fs::read_to_string(out.join("comparison.md")).unwrap(), printed);
    let json: Value = serde_json::from_str(&succeeds(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!((&json["best"], &json["rows"][0]["name"]), (&json!("ift"), &json!("sft")));
    let figure = std::fs::read_to_string(out.join("comparison.svg")).unwrap();
    assert!(figure.contains("WinoGrande") && figure.contains("ift"));
    fails(
        &["compare", &out.join("comparison.json").display().to_string()],
        "results: expected the harness's table of tasks",
    );
}
