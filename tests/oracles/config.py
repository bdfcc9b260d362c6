"""Shapes of models as transformers reads them from config.json, in the hub's form and in its own."""

from generator import write
from transformers import AutoConfig

SIZES = dict(vocab_size=320, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, rope_type="llama3")
CASES = {
    "llama, defaults": ("Llama", {}),
    "llama 2, grouped heads": ("Llama", dict(num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=4096, torch_dtype="float16")),
    "llama 3.1": ("Llama", dict(num_key_value_heads=2, rope_theta=500000.0, rope_scaling=LLAMA3, bos_token_id=300,
                                eos_token_id=[301, 302], torch_dtype="bfloat16", max_position_embeddings=131072)),
    "llama, linear": ("Llama", dict(rope_scaling=dict(type="linear", factor=2.0), attention_bias=True, mlp_bias=True)),
    "llama, wide heads": ("Llama", dict(head_dim=32, tie_word_embeddings=True)),
    "mistral, defaults": ("Mistral", dict(num_key_value_heads=2)),
    "mistral, no window": ("Mistral", dict(num_key_value_heads=2, sliding_window=None, rope_theta=1e6, head_dim=32)),
    "gemma, its first files": ("Gemma", dict(num_key_value_heads=1, head_dim=32, hidden_act="gelu")),
    "gemma, defaults": ("Gemma", dict(num_key_value_heads=1)),
    "qwen2": ("Qwen2", dict(num_key_value_heads=2, rope_theta=1e6, sliding_window=16, use_sliding_window=False, bos_token_id=3,
                            eos_token_id=5, tie_word_embeddings=True)),
    "qwen2, sliding": ("Qwen2", dict(num_key_value_heads=2, sliding_window=16, use_sliding_window=True, max_window_layers=2)),
}


def shape(config):
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    rope = {key: value for key, value in config.rope_parameters.items() if key in {*LLAMA3, "rope_theta"}}
    eos = config.eos_token_id
    return {"kv_heads": config.num_key_value_heads,
            "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            "rms_norm_eps": config.rms_norm_eps, "tied_embeddings": config.tie_word_embeddings, "activation": config.hidden_act,
            "windows": [window if kind == "sliding_attention" else None for kind in types], "rope": rope,
            "positions": config.max_position_embeddings, "bos": config.bos_token_id,
            "eos": [] if eos is None else eos if isinstance(eos, list) else [eos],
            "dtype": config.dtype and str(config.dtype).removeprefix("torch.")}


def case(name, family, fields):
    hub = {"architectures": [f"{family}ForCausalLM"], "model_type": family.lower(), **SIZES, **fields}
    config = AutoConfig.for_model(**hub)
    own = config.to_dict()
    return {"name": name, "hub": hub, "own": own, "shape": shape(config)}


if __name__ == "__main__":
    write(__file__, ["transformers"], cases=[case(name, *fields) for name, fields in CASES.items()])
