//! Agreement with transformers' reading of `config.json`; `tests/oracles/config.py` recorded it.

use lm::checkpoint::config::{ModelConfig, RopeScaling, parse_config};
use serde_json::{Value, json};

/// The shape, as the oracle describes it.
fn shape(config: &ModelConfig) -> Value {
    let mut rope = match config.rope.scaling {
        RopeScaling::Default => json!({"rope_type": "default"}),
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_positions}),
    };
    rope["rope_theta"] = json!(config.rope.theta);
    json!({
        "kv_heads": config.kv_heads, "head_dim": config.head_dim, "rms_norm_eps": config.rms_norm_eps,
        "tied_embeddings": config.tied_embeddings, "activation": config.activation.to_string(),
        "windows": config.windows, "rope": rope, "positions": config.positions, "bos": config.bos, "eos": config.eos,
        "dtype": config.dtype.map(|dtype| dtype.to_string()),
    })
}

#[test]
fn shapes_agree_with_transformers_as_the_hub_and_as_transformers_5_write_them() {
    let path = crate::oracle::oracles().join("config.json");
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = answers["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        for form in ["hub", "own"] {
            let config = parse_config("config.json".as_ref(), &case[form].to_string()).unwrap();
            assert_eq!(shape(&config), case["shape"], "{}, {form}", case["name"]);
        }
    }
}
