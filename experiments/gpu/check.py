"""What check.sh runs: steps of `lm` and of PyTorch on one device, each in a process of its own, one after the other.

usage: check.py [--device cuda|cpu] [--out FILE]    in the checkout, with the example `steps` built
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import torch

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "speed"), str(HERE.parent / "lm")]
from record import versions  # noqa: E402
from speed import batch  # noqa: E402

STEPS = str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug/examples/steps")
TINY = "tests/oracles/checkpoints/llama"
METHODS = ["sft", "ift", "dpo", "orpo"]
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "max_position_embeddings": 4096, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "7b": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "1b": {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2},
}
# Losses of 32 bits on two devices differ as sums in another order do; of 16 bits, by what the tests of those allow.
NEAR, NEAR_16 = 1e-5, 3e-2


def objective(method):
    return json.dumps({"name": method} | ({"freeze_embeddings": "all"} if method == "ift" else {}))


def pairs(folder, name, vocabulary, count, prompt, response):
    path = folder / name
    path.write_text("".join(json.dumps(pair) + "\n" for pair in batch(vocabulary, count, prompt, response)))
    return str(path)


class Watch:
    """The most memory of the device that was in use, beyond what was before, while a process ran."""

    def __init__(self, device):
        self.device, self.most, self.runs = device, 0, device == "cuda"
        self.before = self.used()

    def used(self):
        if self.device == "cpu":
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.runs:
            self.most = max(self.most, self.used() - self.before)
            time.sleep(0.01)

    def __exit__(self, *_):
        self.runs = False
        self.thread.join()


def answer(command):
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if run.returncode:
        return {"failed": run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit code {run.returncode}"}
    return json.loads(run.stdout.splitlines()[-1])


def steps(model, data, method, optimizer, count, words):
    return answer([STEPS, str(model), data, objective(method), optimizer, str(count), *words])


def available(device):
    if device == "cpu":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    if not torch.cuda.is_available():
        raise SystemExit("check.py: PyTorch sees no CUDA device on this machine; --device cpu goes the same ways with tiny models")
    properties = torch.cuda.get_device_properties(0)
    return {"device": properties.name, "memory_gib": properties.total_memory / 2**30, "cuda": torch.version.cuda}


def parity(device, data):
    """Losses of two steps on the device beside those of the CPU in 32 bits."""
    on = ["cuda"] if device == "cuda" else []
    rows = []
    for method in METHODS:
        expected = steps(TINY, data, method, "adamw", 2, [])
        for dtype, words, near in [("float32", [], NEAR), ("bfloat16", ["bfloat16"], NEAR_16)]:
            found = steps(TINY, data, method, "adamw", 2, on + words)
            row = {"method": method, "dtype": dtype}
            if "failed" in expected or "failed" in found:
                row |= {"failed": expected.get("failed", found.get("failed")), "agrees": False}
            else:
                error = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found["losses"], expected["losses"]))
                row |= {"losses": found["losses"], "error": error, "allowed": near, "agrees": error <= near}
            rows.append(row)
    return rows


def memory(device, folder, size):
    """Peak memory of SFT at 4 x 1024 tokens with checkpointing, weights drawn."""
    (folder / "drawn").mkdir()
    (folder / "drawn/config.json").write_text(json.dumps(LLAMA | SIZES[size]))
    length = (512, 512) if device == "cuda" else (8, 8)
    data = pairs(folder, "memory.jsonl", SIZES[size]["vocab_size"], 4, length, length)
    words = ["random", "bfloat16", "checkpointing", "padded"] + (["cuda"] if device == "cuda" else [])
    rows = []
    for optimizer in ["rmsprop", "sgd"]:
        with Watch(device) as watch:
            found = steps(folder / "drawn", data, "sft", optimizer, 3, words)
        row = {"model": size, "optimizer": optimizer, "peak_gib": (watch.most or found.get("peak_bytes", 0)) / 2**30}
        rows.append(row | {key: found[key] for key in ("failed", "seconds", "tokens", "attention") if key in found})
    return rows


def speed(device, folder, size):
    """Tokens a second of the same steps in `lm` and in PyTorch: one model, one batch, 16-bit weights without copies."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        LlamaForCausalLM(LlamaConfig(**(LLAMA | SIZES[size]))).to(torch.bfloat16).save_pretrained(folder / "model")
    if device == "cuda":
        torch.cuda.empty_cache()
    prompt, response = ((128, 384), (256, 640)) if device == "cuda" else ((4, 12), (8, 20))
    data = pairs(folder, "speed.jsonl", SIZES[size]["vocab_size"], 4, prompt, response)
    rows = []
    for method in METHODS:
        count, on = (8, ["cuda"]) if device == "cuda" else (3, [])
        ours = steps(folder / "model", data, method, "rmsprop", count, ["bfloat16", *on])
        theirs = answer([sys.executable, str(HERE.parent / "lm/speed.py"), "peer", str(folder / "model"), data, method, "rmsprop",
                         str(count), device, "bfloat16"])
        row = {"model": size, "method": method}
        for name, found in [("lm", ours), ("pytorch", theirs)]:
            row[name] = found if "failed" in found else {
                "tokens_per_second": ours.get("tokens", 0) / statistics.median(found["seconds"][1:]), "losses": found["losses"][:2]}
        if "failed" not in ours | theirs:
            row["ratio"] = row["lm"]["tokens_per_second"] / row["pytorch"]["tokens_per_second"]
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "check.json")
    arguments = parser.parse_args()
    begun = time.monotonic()
    is_gpu = arguments.device == "cuda"
    found = {"date": time.strftime("%Y-%m-%d"), "versions": versions(["torch", "transformers"])}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found["available"] = available(arguments.device)
        found["parity"] = parity(arguments.device, pairs(folder, "parity.jsonl", 96, 4, (4, 12), (8, 20)))
        found["memory"] = memory(arguments.device, folder, "7b" if is_gpu else "tiny")
        found["speed"] = speed(arguments.device, folder, "1b" if is_gpu else "tiny")
    found["seconds"] = round(time.monotonic() - begun)
    unfinished = arguments.out.with_name("." + arguments.out.name)
    unfinished.write_text(json.dumps(found, indent=2) + "\n")
    unfinished.replace(arguments.out)
    for part in ("parity", "memory", "speed"):
        for row in found[part]:
            print(part, json.dumps(row))
    print(f"written: {arguments.out}, after {found['seconds']} s")
    # The largest model need not fit; everything else has to work.
    failed = [row for row in found["parity"] if not row["agrees"]]
    failed += [row for row in found["speed"] if "ratio" not in row]
    failed += found["memory"] if all("failed" in row for row in found["memory"]) else []
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
