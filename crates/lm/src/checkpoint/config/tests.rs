//! Tests of supported values, defaults and rejected values of `config.json`.

use serde_json::{Value, json};

use super::*;

fn sizes(architecture: &str) -> Value {
    json!({"architectures": [architecture], "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4})
}

fn with(mut config: Value, fields: Value) -> Value {
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

fn parse(config: &Value) -> Result<ModelConfig, LmError> {
    parse_config("config.json".as_ref(), &config.to_string())
}

#[track_caller]
fn refused(architecture: &str, fields: Value, message: &str) {
    assert_eq!(parse(&with(sizes(architecture), fields)).unwrap_err().to_string(), format!("config.json: {message}"));
}

#[test]
fn llama_takes_the_defaults_of_transformers() {
    let config = parse(&sizes("LlamaForCausalLM")).unwrap();
    let expected = ModelConfig {
        architecture: Architecture::Llama,
        vocabulary: 96,
        hidden_size: 32,
        intermediate_size: 64,
        layers: 2,
        heads: 4,
        kv_heads: 4,
        head_dim: 8,
        rms_norm_eps: 1e-6,
        tied_embeddings: false,
        activation: Activation::Silu,
        biases: Biases::default(),
        windows: vec![None, None],
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
        positions: 2048,
        bos: Some(1),
        eos: vec![2],
        dtype: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn rope_is_read_as_the_hub_and_as_transformers_5_write_it() {
    let llama3 = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"});
    let hub = json!({"rope_theta": 500000.0, "rope_scaling": llama3});
    let transformers5 = json!({"rope_parameters": with(llama3, json!({"rope_theta": 500000.0}))});
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192 };
    for fields in [hub, transformers5] {
        let config = parse(&with(sizes("LlamaForCausalLM"), fields)).unwrap();
        assert_eq!(config.rope, Rope { theta: 500_000.0, scaling });
    }
    for fields in [
        json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
        json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    ] {
        let config = parse(&with(sizes("LlamaForCausalLM"), fields)).unwrap();
        assert_eq!(config.rope, Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 2.0 } });
    }
    let unscaled = json!({"rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, "rope_scaling": null});
    assert_eq!(parse(&with(sizes("LlamaForCausalLM"), unscaled)).unwrap().rope.scaling, RopeScaling::Default);
}

#[test]
fn rope_that_is_unknown_or_contradicts_itself_is_refused() {
    let refused = |fields, message| refused("LlamaForCausalLM", fields, message);
    refused(
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
        "rope_scaling.rope_type: expected one of default, linear, llama3, got yarn",
    );
    refused(json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor: expected at least 1, got nothing");
    refused(
        json!({"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}),
        "rope_theta: expected 2, as rope_parameters says, got 1",
    );
    refused(
        json!({"rope_parameters": {"rope_theta": 2.0}, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        "rope_scaling: expected nothing beside rope_parameters, got both",
    );
    refused(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}}),
        "rope_scaling.high_freq_factor: expected above low_freq_factor = 4, got 4",
    );
    refused(
        json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        "rope_parameters.partial_rotary_factor: expected 1, got 0.5",
    );
}

#[test]
fn mistral_slides_unless_its_window_is_null() {
    let mistral = with(sizes("MistralForCausalLM"), json!({"num_key_value_heads": 2}));
    assert_eq!(parse(&mistral).unwrap().windows, [Some(4096); 2]);
    assert_eq!(parse(&with(mistral.clone(), json!({"sliding_window": 16}))).unwrap().windows, [Some(16); 2]);
    assert_eq!(parse(&with(mistral, json!({"sliding_window": null}))).unwrap().windows, [None; 2]);
}

#[test]
fn gemma_ties_its_embeddings_and_means_the_approximate_gelu() {
    for fields in [
        json!({}),
        json!({"hidden_act": "gelu"}),
        json!({"hidden_act": "gelu", "hidden_activation": null}),
        json!({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}),
    ] {
        let gemma = with(sizes("GemmaForCausalLM"), json!({"num_key_value_heads": 1}));
        let config = parse(&with(gemma, fields)).unwrap();
        assert_eq!(config.activation, Activation::GeluPytorchTanh);
        assert_eq!((config.head_dim, config.kv_heads), (256, 1));
        assert!(config.tied_embeddings);
        assert_eq!((config.bos, config.eos), (Some(2), vec![1]));
    }
}

#[test]
fn qwen2_has_biases_where_others_have_none_and_slides_from_a_layer_on() {
    let qwen2 = with(sizes("Qwen2ForCausalLM"), json!({"num_key_value_heads": 2, "sliding_window": 8}));
    let config = parse(&qwen2).unwrap();
    assert_eq!(config.biases, Biases { qkv: true, output: false, feed_forward: false });
    assert_eq!(config.windows, [None; 2]);
    assert_eq!((config.bos, config.eos), (None, vec![]));
    let sliding = with(qwen2, json!({"use_sliding_window": true, "max_window_layers": 1}));
    assert_eq!(parse(&sliding).unwrap().windows, [None, Some(8)]);
    let types = json!({"layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(parse(&with(sliding, types)).unwrap().windows, [Some(8), None]);
}

#[test]
fn ends_are_one_token_or_a_list_and_precision_has_two_names() {
    let fields = json!({"eos_token_id": [2, 3], "bos_token_id": null, "torch_dtype": "bfloat16"});
    let config = parse(&with(sizes("LlamaForCausalLM"), fields)).unwrap();
    assert_eq!((config.bos, config.eos, config.dtype), (None, vec![2, 3], Some(Dtype::Bfloat16)));
    let config = parse(&with(sizes("LlamaForCausalLM"), json!({"dtype": "float16"}))).unwrap();
    assert_eq!(config.dtype, Some(Dtype::Float16));
}

#[test]
fn a_head_may_be_wider_than_its_share() {
    let config = parse(&with(sizes("LlamaForCausalLM"), json!({"head_dim": 16}))).unwrap();
    assert_eq!((config.head_dim, config.hidden_size / config.heads), (16, 8));
}

#[test]
fn unsupported_values_are_rejected_by_name() {
    let known = "LlamaForCausalLM, MistralForCausalLM, GemmaForCausalLM, Qwen2ForCausalLM";
    refused("GPT2LMHeadModel", json!({}), &format!("architectures: expected one of {known}, got GPT2LMHeadModel"));
    refused(
        "LlamaForCausalLM",
        json!({"architectures": null}),
        &format!("architectures: expected exactly one of {known}, got nothing"),
    );
    for (architecture, fields, message) in [
        (
            "LlamaForCausalLM",
            json!({"model_type": "qwen2"}),
            "model_type: expected llama for LlamaForCausalLM, got qwen2",
        ),
        (
            "LlamaForCausalLM",
            json!({"hidden_act": "relu"}),
            "hidden_act: expected one of silu, gelu, gelu_pytorch_tanh, got relu",
        ),
        ("LlamaForCausalLM", json!({"hidden_size": null}), "hidden_size: expected at least 1, got nothing"),
        ("LlamaForCausalLM", json!({"num_hidden_layers": 0}), "num_hidden_layers: expected at least 1, got 0"),
        (
            "LlamaForCausalLM",
            json!({"num_key_value_heads": 3}),
            "num_key_value_heads: expected a divisor of the 4 heads, got 3",
        ),
        ("LlamaForCausalLM", json!({"head_dim": 7}), "head_dim: expected an even number above 0, got 7"),
        (
            "LlamaForCausalLM",
            json!({"hidden_size": 33}),
            "head_dim: expected given, as the 4 heads do not divide hidden_size = 33, got nothing",
        ),
        ("LlamaForCausalLM", json!({"eos_token_id": [2, 96]}), "eos_token_id: expected below vocab_size = 96, got 96"),
        ("LlamaForCausalLM", json!({"rms_norm_eps": -1.0}), "rms_norm_eps: expected a number above 0, got -1"),
        (
            "LlamaForCausalLM",
            json!({"torch_dtype": "int8"}),
            "torch_dtype: expected one of float32, float16, bfloat16, got int8",
        ),
        ("LlamaForCausalLM", json!({"sliding_window": 8}), "sliding_window: expected null for LlamaForCausalLM, got 8"),
        (
            "LlamaForCausalLM",
            json!({"layer_types": ["full_attention", "chunked_attention"]}),
            "layer_types[1]: expected full_attention, got chunked_attention",
        ),
        (
            "LlamaForCausalLM",
            json!({"quantization_config": {"bits": 4}}),
            "quantization_config: expected nothing, as quantised weights are not supported, got {\"bits\":4}",
        ),
        (
            "MistralForCausalLM",
            json!({"num_key_value_heads": 2, "attention_bias": true}),
            "attention_bias: expected false or nothing for MistralForCausalLM, got true",
        ),
        (
            "GemmaForCausalLM",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention: expected false, got true",
        ),
    ] {
        refused(architecture, fields, message);
    }
}

#[test]
fn numbers_that_no_computer_holds_are_refused_by_name_before_anything_is_made_of_them() {
    for layers in [10_001_u64, 1_000_000_000, 1_000_000_000_000_000_000] {
        refused(
            "MistralForCausalLM",
            json!({"num_hidden_layers": layers, "num_key_value_heads": 1}),
            &format!(
                "num_hidden_layers: expected at most {}, got {layers}",
                if layers > 2_147_483_647 { 2_147_483_647 } else { 10_000 }
            ),
        );
    }
    for field in
        ["hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "head_dim", "max_position_embeddings"]
    {
        let given = (1_u64 << 62) + 12;
        refused(
            "LlamaForCausalLM",
            json!({field: given}),
            &format!("{field}: expected at most 2147483647, got {given}"),
        );
    }
    refused(
        "LlamaForCausalLM",
        json!({"head_dim": 2_000_000_000}),
        "num_attention_heads: expected heads that have at most 2147483647 numbers together, 2000000000 in each, got 4",
    );
    refused(
        "LlamaForCausalLM",
        json!({"hidden_size": 1 << 30, "intermediate_size": 1 << 30, "num_attention_heads": 4, "head_dim": 2}),
        "vocab_size, hidden_size, intermediate_size, num_hidden_layers: expected at most 1125899906842624 parameters, \
         got 6917529302518988800",
    );
    let given = i64::MAX;
    refused(
        "MistralForCausalLM",
        json!({"num_key_value_heads": 1, "sliding_window": given}),
        &format!("sliding_window: expected at most 2147483647, got {given}"),
    );
}

#[test]
fn a_field_of_another_type_is_named() {
    let error = parse(&with(sizes("LlamaForCausalLM"), json!({"rope_scaling": {"factor": "8"}}))).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("config.json: rope_scaling.factor: invalid type: string \"8\""), "{message}");
    let cut = parse_config("config.json".as_ref(), "{\"vocab_size\": 3").unwrap_err().to_string();
    assert!(cut.starts_with("config.json: ") && cut.contains("EOF"), "{cut}");
}
