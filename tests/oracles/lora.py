"""Low-rank adapters of tiny checkpoints as PEFT saves them, and what PEFT computes with them in float64: log-probabilities, losses,
gradients and training steps, where the reference is the model with its adapter off.

lora.py check ADAPTER CHECKPOINT loads a folder of another program, and prints its log-probabilities of the recorded sequences.
"""

import json
import pathlib
import random
import shutil
import sys

import peft
import torch

import checkpoints
import finetune
import generator

HERE = pathlib.Path(__file__).parent / "adapters"
STEPS, RATE = 10, 1e-3
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# A checkpoint, the rank, the scaling's numerator, and which maps are adapted.
ADAPTERS = {
    "llama": ("llama", dict(r=3, lora_alpha=6, target_modules=ALL)),
    "tied": ("llama-sharded", dict(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "down_proj"])),
    "gemma": ("gemma", dict(r=4, lora_alpha=2, target_modules=["o_proj", "gate_proj"], use_rslora=True)),
}


def save(name, checkpoint, fields, seed):
    """Both factors drawn anew, as an adapter that was just made adds nothing."""
    model = peft.get_peft_model(checkpoints.load(checkpoints.HERE / checkpoint), peft.LoraConfig(task_type="CAUSAL_LM", **fields))
    model.peft_config["default"].base_model_name_or_path = checkpoint
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=draw))
    shutil.rmtree(HERE / name, ignore_errors=True)
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink()
    (HERE / name / "adapter_model.safetensors").chmod(0o644)
    path = HERE / name / "adapter_config.json"
    # PEFT keeps the names in a set.
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"target_modules": sorted(written["target_modules"])}, indent=2, sort_keys=True) + "\n")


def load(folder, checkpoint):
    return peft.PeftModel.from_pretrained(finetune.load(checkpoint, torch.float64), folder, is_trainable=True).to(torch.float64).eval()


def without(model):
    """The same model with its adapter off."""
    def answer(**inputs):
        with model.disable_adapter():
            return model(**inputs)
    return answer


def trained(model):
    return {key.replace(".default", ""): weight for key, weight in model.named_parameters() if weight.requires_grad}


def log_prob(model, pairs):
    with finetune.computed_in(torch.float64), torch.no_grad():
        return [finetune.picked(finetune.log_policy(model, pair["prompt_ids"], pair[side]), pair[side]).tolist()
                for pair in pairs for side in ("chosen_ids", "rejected_ids")]


def gradients(name, checkpoint, method, pairs):
    model = load(HERE / name, checkpoint)
    with finetune.computed_in(torch.float64):
        value = finetune.loss(model, without(model), pairs, method)
        value.backward()
    recorded = {}
    for key, weight in trained(model).items():
        flat = weight.grad.flatten()
        stride = len(flat) // 4 | 1
        recorded[key] = {"norm": flat.norm().item(), "stride": stride, "values": flat[::stride][:4].tolist()}
    norm = sum(record["norm"] ** 2 for record in recorded.values()) ** 0.5
    return {"name": f"{name}, {method['name']}", "adapter": name, "method": method, "loss": value.item(), "gradient_norm": norm,
            "gradients": recorded}


def run(name, checkpoint, method, pairs):
    """Loss and gradient norm before each step."""
    model, losses, norms = load(HERE / name, checkpoint), [], []
    with finetune.computed_in(torch.float64):
        weights = list(trained(model).values())
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=finetune.ADAMW["weight_decay"])
        for _ in range(STEPS):
            optimizer.zero_grad()
            value = finetune.loss(model, without(model), pairs, method)
            value.backward()
            losses.append(value.item())
            norms.append(torch.nn.utils.clip_grad_norm_(weights, finetune.CLIP).item())
            optimizer.step()
    return {"name": f"{name}, {method['name']}", "adapter": name, "method": method, "losses": losses, "gradient_norms": norms}


def main():
    pairs = finetune.drawn(random.Random(finetune.SEED))
    if sys.argv[1:2] == ["check"]:
        print(json.dumps(log_prob(load(*sys.argv[2:]), pairs)))
        return
    for seed, (name, fields) in enumerate(ADAPTERS.items()):
        save(name, *fields, seed)
    of = {name: checkpoint for name, (checkpoint, _) in ADAPTERS.items()}
    adapters = [{"name": name, "checkpoint": of[name], "log_prob": log_prob(load(HERE / name, of[name]), pairs)} for name in of]
    cases = [gradients(name, of[name], method, pairs) for name in of for method in (finetune.SFT, finetune.DPO, finetune.TDPO)]
    runs = [run(name, of[name], method, pairs) for name in of for method in (finetune.SFT, finetune.DPO)]
    generator.write(__file__, ["torch", "transformers", "peft", "safetensors"], pairs=pairs, optimizer=finetune.ADAMW,
                    learning_rate=RATE, max_gradient_norm=finetune.CLIP, **finetune.shortened(
                        {"adapters": adapters, "cases": cases, "runs": runs}))


if __name__ == "__main__":
    main()
