"""Step time and peak memory of `lm` beside PyTorch with transformers: same model, same batch, one run, on a CPU.

usage: speed.py MODEL_FOLDER [STEPS]    run in the checkout, with torch 2.11 and transformers installed; writes speed.json beside it

The peer is the loop that one writes with transformers: right padding, sdpa attention, the model's logits of all tokens, log-softmax,
PyTorch's fused AdamW or its RMSprop. Both run as processes of their own, in turn, with the same threads; the first step of each is
left out. Losses of both are compared, so that the same is measured.
"""

import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "speed"))
PAIRS, PROMPT, RESPONSE = 4, (32, 96), (64, 192)
CASES = [("sft", "adamw"), ("sft", "rmsprop"), ("ift", "rmsprop"), ("dpo", "adamw"), ("orpo", "adamw"), ("simpo", "adamw")]


def batch(vocabulary, pairs=PAIRS, prompt=PROMPT, response=RESPONSE):
    """Pairs of random token ids, of lengths between these bounds."""
    draw = random.Random(20240517)
    ids = lambda bounds: [draw.randrange(vocabulary) for _ in range(draw.randint(*bounds))]
    return [{"prompt_ids": ids(prompt), "chosen_ids": ids(response), "rejected_ids": ids(response)} for _ in range(pairs)]


def peer(folder, data, method, optimizer, steps, device="cpu", dtype="float32"):
    import resource

    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").to(device)
    pairs = [json.loads(line) for line in open(data)]
    compares = method in ("dpo", "orpo", "simpo")
    sequences = [(pair["prompt_ids"], pair["chosen_ids"]) for pair in pairs]
    sequences += [(pair["prompt_ids"], pair["rejected_ids"]) for pair in pairs] if compares else []
    longest = max(len(prompt) + len(response) for prompt, response in sequences)
    ids, mask, attention = (torch.zeros(len(sequences), longest, dtype=torch.long) for _ in range(3))
    for row, (prompt, response) in enumerate(sequences):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        mask[row, len(prompt):end] = attention[row, :end] = 1
    ids, mask, attention = ids.to(device), mask[:, 1:].bool().to(device), attention.to(device)

    def log_probs(**inputs):
        logits = model(attention_mask=attention, use_cache=False, **inputs).logits[:, :-1].float()
        return torch.gather(logits.log_softmax(-1), 2, ids[:, 1:, None]).squeeze(-1).masked_fill(~mask, 0.0)

    def sums():
        return log_probs(input_ids=ids).sum(-1)

    def loss():
        if method == "ift":
            with torch.no_grad():
                greedy = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1].argmax(-1)
            table = model.get_input_embeddings()
            own, predicted = table(ids).detach(), table(greedy).detach()
            fused = own.clone()
            fused[:, 1:] = torch.where(mask[..., None], 0.8 * own[:, 1:] + 0.2 * predicted, own[:, 1:])
            rows = log_probs(inputs_embeds=fused)
            losses = []
            for row, keep in zip(-rows, mask):
                row = row[keep]
                cumulated, sum_ = [], 0.0
                for value in reversed(row.unbind()):
                    sum_ = value + 0.95 * sum_
                    cumulated.append(sum_)
                cumulated = torch.stack(cumulated[::-1])
                losses.append((row * cumulated).sum() / cumulated.sum())
            return torch.stack(losses).mean()
        if method == "sft":
            labels = torch.where(mask, ids[:, 1:], -100)
            logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1].float()
            return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
        total = sums()
        if method == "dpo":
            chosen, rejected = (total - reference).chunk(2)
            return -F.logsigmoid(0.1 * (chosen - rejected)).mean()
        chosen, rejected = (total / mask.sum(-1)).chunk(2)
        if method == "simpo":
            return -F.logsigmoid(2.0 * (chosen - rejected) - 1.6).mean()
        odds = lambda m: m - torch.log1p(-m.exp())
        return (-chosen - 0.25 * F.logsigmoid(odds(chosen) - odds(rejected))).mean()

    if method == "dpo":
        with torch.no_grad():
            reference = sums()
    parameters = list(model.parameters())
    step = torch.optim.AdamW(parameters, lr=1e-6, fused=True) if optimizer == "adamw" else torch.optim.RMSprop(parameters, lr=1e-6)
    seconds, losses = [], []
    for _ in range(steps):
        begun = time.perf_counter()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        step.step()
        step.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        losses.append(value.item())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if device == "cpu" else torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "losses": losses, "peak_bytes": peak}))


def answer(command):
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.splitlines()[-1])


def main(folder, steps=6):
    from record import write

    vocabulary = json.loads((pathlib.Path(folder) / "config.json").read_text())["vocab_size"]
    cases = []
    with tempfile.TemporaryDirectory() as work:
        data = pathlib.Path(work) / "batch.jsonl"
        data.write_text("".join(json.dumps(pair) + "\n" for pair in batch(vocabulary)))
        subprocess.run(["cargo", "build", "--quiet", "-p", "lm", "--example", "steps"], check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
        for method, optimizer in CASES:
            # IFT as its authors run it: no embedding that the second forward pass reads has a gradient.
            objective = {"name": method} | ({"freeze_embeddings": "all"} if method == "ift" else {})
            ours = [str(target / "debug/examples/steps"), folder, str(data), json.dumps(objective), optimizer, str(steps)]
            theirs = [sys.executable, __file__, "peer", folder, str(data), method, optimizer, str(steps)]
            case = {"method": method, "optimizer": optimizer}
            for name, command in [("lm", ours), ("lm_padded", [*ours, "padded"]), ("lm_checkpointing", [*ours, "checkpointing"]),
                                  ("transformers", theirs)]:
                found = answer(command)
                case[name] = {"seconds": statistics.median(found["seconds"][1:]), "peak_gib": found["peak_bytes"] / 2**30,
                              "losses": found["losses"][:2]}
            case["time_ratio"] = case["lm"]["seconds"] / case["transformers"]["seconds"]
            case["memory_ratio"] = case["lm"]["peak_gib"] / case["transformers"]["peak_gib"]
            print(json.dumps(case), flush=True)
            cases.append(case)
    write(__file__, ["torch", "transformers"], threads=os.cpu_count(), model=pathlib.Path(folder).name, pairs=PAIRS, cases=cases)


if __name__ == "__main__":
    if sys.argv[1] == "peer":
        peer(*sys.argv[2:6], int(sys.argv[6]), *sys.argv[7:])
    else:
        main(sys.argv[1], *map(int, sys.argv[2:]))
