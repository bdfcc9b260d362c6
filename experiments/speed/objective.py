"""Loss and gradient by log-probability of 64k response tokens: this project beside PyTorch eager, one thread each, one run.

Run from the repository's root with PyTorch installed: `python3 experiments/speed/objective.py`. The inputs are those of
`crates/objective/benches/objectives.rs`; PyTorch gets them as its users do, padded with a mask. Writes `objective.json`
beside itself.
"""

import json
import pathlib
import statistics
import subprocess
import time

import torch

import record

TOKENS = 65536
MASK = (1 << 64) - 1


def variety():
    state = 1
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        yield (state >> 11) / (1 << 53)


def inputs(columns, dtype):
    draw, lengths = variety(), []
    while len(lengths) % 2 or sum(lengths) < TOKENS:
        lengths.append(16 + int(497 * next(draw)))
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    padded = []
    for _ in range(columns):
        column = torch.zeros(mask.shape, dtype=dtype)
        column[mask] = torch.tensor([-(0.01 + 3 * next(draw)) for _ in range(sum(lengths))], dtype=dtype)
        padded.append(column)
    return sum(lengths), mask.to(dtype), padded


def sft(mask, policy):
    return -(policy * mask).sum() / mask.sum()


def dpo(mask, policy, reference):
    ratio = ((policy - reference) * mask).sum(1)
    return -torch.nn.functional.logsigmoid(0.1 * (ratio[0::2] - ratio[1::2])).mean()


def simpo(mask, policy):
    mean = (policy * mask).sum(1) / mask.sum(1)
    return -torch.nn.functional.logsigmoid(2 * (mean[0::2] - mean[1::2]) - 1.6).mean()


def orpo(mask, policy):
    mean = (policy * mask).sum(1) / mask.sum(1)
    odds = mean - torch.log(-torch.expm1(mean))
    return (-mean[0::2] - 0.25 * torch.nn.functional.logsigmoid(odds[0::2] - odds[1::2])).mean()


def measure(function, columns, dtype):
    """Median seconds of loss and gradient."""
    tokens, mask, (policy, *rest) = inputs(columns, dtype)
    policy.requires_grad_()
    times = []
    for _ in range(300):
        policy.grad = None
        start = time.perf_counter()
        function(mask, policy, *rest).backward()
        times.append(time.perf_counter() - start)
    return tokens, statistics.median(times)


def main():
    torch.set_num_threads(1)
    methods = {"sft": (sft, 1), "dpo": (dpo, 2), "orpo": (orpo, 1), "simpo": (simpo, 1)}
    filter_ = "^(" + "|".join(methods) + f")/{TOKENS}$"
    command = ["cargo", "bench", "-p", "objective", "--bench", "objectives", "--", filter_]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = {}
    for name, (function, columns) in methods.items():
        estimates = pathlib.Path(f"target/criterion/{name}/{TOKENS}/new/estimates.json")
        ours = json.loads(estimates.read_text())["median"]["point_estimate"] * 1e-9
        rows[name] = {"microseconds": ours * 1e6}
        for label, dtype in (("float64", torch.float64), ("float32", torch.float32)):
            tokens, theirs = measure(function, columns, dtype)
            rows[name] |= {"tokens": tokens, f"pytorch_{label}_microseconds": theirs * 1e6, f"ratio_{label}": theirs / ours}
        print(f"{name:6} {ours * 1e6:8.1f} us   PyTorch float64 {rows[name]['ratio_float64']:5.1f}x"
              f"   float32 {rows[name]['ratio_float32']:5.1f}x", flush=True)
    record.write(__file__, ("torch",), methods=rows)


if __name__ == "__main__":
    main()
