"""Tiny random checkpoints as transformers saves them and as the hub has them, with what transformers computes from them in float32."""

import json
import pathlib
import random
import shutil

import torch
from generator import write
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent / "checkpoints"
VOCABULARY, LENGTHS, NEW = 96, (1, 9, 23), 8
SIZES = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, bos_token_id=1, eos_token_id=2, max_position_embeddings=128)
THETA = lambda theta: dict(rope_parameters=dict(rope_type="default", rope_theta=theta))
# Of the six frequencies, one is kept, one is between, and four are divided by the factor.
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
# A family, the differences of its configuration, a type for its weights, and the hub's form of `rope_parameters`, if
# it is used.
CHECKPOINTS = {
    "llama": ("llama", dict(head_dim=12, rope_parameters=LLAMA3, max_position_embeddings=512), torch.float32, None),
    "llama-sharded": ("llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5, rope_parameters=dict(
        rope_type="linear", factor=2.0, rope_theta=5000.0)), torch.bfloat16, dict(rope_theta=5000.0, rope_scaling=dict(type="linear", factor=2.0))),
    "mistral": ("mistral", dict(sliding_window=5, **THETA(1e6)), torch.float32, None),
    "gemma": ("gemma", dict(num_key_value_heads=1, head_dim=16, hidden_activation="gelu_pytorch_tanh", pad_token_id=0), torch.float32, None),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True, use_sliding_window=False, sliding_window=4, max_window_layers=1, **THETA(1e6)),
              torch.float16, dict(rope_theta=1e6, use_sliding_window=False, sliding_window=4)),
    "qwen2-sliding": ("qwen2", dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=4, max_window_layers=1),
                      torch.float32, None),
}


def save(name, family, fields, dtype, hub, seed):
    """Every weight drawn anew, norms and biases as well, so that one left out shows."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES | fields))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if "norm" in key:
                weight += 0.3 * noise
            elif "bias" in key:
                weight.copy_(0.3 * noise)
            else:
                weight.copy_((0.3 if "embed" in key or "head" in key else 0.4) * noise)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size="20KB" if "sharded" in name else "5GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if hub:
        path = folder / "config.json"
        written = json.loads(path.read_text())
        written["torch_dtype"] = written.pop("dtype")
        for key in ("rope_parameters", "layer_types", "head_dim", "transformers_version"):
            written.pop(key, None)
        path.write_text(json.dumps(written | hub, indent=2, sort_keys=True) + "\n")


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def rounded(values, digits=8):
    return [float(f"{value:.{digits}g}") for value in values]


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def log_prob(model, ids):
    """Of each token from the second, given those before it."""
    return torch.log_softmax(logits(model, ids)[:-1], dim=-1)[range(len(ids) - 1), ids[1:]]


def greedy(model, ids, new):
    """The most probable token at each step, end-of-sequence tokens as any other; the same without a cache."""
    whole = torch.tensor([ids])
    model.generation_config.eos_token_id = None
    answer = model.generate(whole, attention_mask=torch.ones_like(whole), do_sample=False, max_new_tokens=new)[0].tolist()
    places = range(len(ids) - 1, len(answer) - 1)
    assert len(answer) == len(ids) + new and answer[len(ids):] == logits(model, answer)[places].argmax(dim=-1).tolist()
    return answer[len(ids):]


def answers(name, draw):
    model, sequences = load(HERE / name), []
    for length in LENGTHS:
        ids = [draw.randrange(VOCABULARY) for _ in range(length)]
        scores = logits(model, ids)
        sequences.append({"ids": ids, "log_prob": rounded(log_prob(model, ids).tolist()),
                          "logits": {place: rounded(scores[place].tolist()) for place in sorted({length // 2, length - 1})}})
    return {"name": name, "sequences": sequences, "greedy": greedy(model, sequences[1]["ids"], NEW)}


if __name__ == "__main__":
    for seed, (name, fields) in enumerate(CHECKPOINTS.items()):
        save(name, *fields, seed)
    draw = random.Random(20240517)
    write(__file__, ["torch", "transformers", "safetensors"], checkpoints=[answers(name, draw) for name in CHECKPOINTS])
