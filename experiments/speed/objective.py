"""Loss and gradient by log-probability of 64k response tokens: this project beside PyTorch, eager and compiled, in float64 and
float32, one thread each, one sitting.

Run from the repository's root with PyTorch and a C++ compiler installed: `python3 experiments/speed/objective.py`. The inputs are
those of `crates/objective/benches/minimum.rs`; PyTorch gets them as its users do, padded with a mask. Every time is the minimum
of its repetitions, which other load on the machine disturbs least; the load is recorded. The project's own time is measured at 1M
tokens too, and compared by token. Writes `objective.json` beside itself.
"""

import functools
import os
import subprocess
import time

import torch

import record

TOKENS = 1 << 16
MANY_TOKENS = 1 << 20
REPETITIONS = 200
GAMMA = 0.95
MASK = (1 << 64) - 1


def variety():
    state = 1
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        yield (state >> 11) / (1 << 53)


def response_lengths(draw, tokens):
    lengths = []
    while len(lengths) % 2 or sum(lengths) < tokens:
        lengths.append(16 + int(497 * next(draw)))
        next(draw)  # the benchmark draws a reward for each response
    return lengths


def inputs(columns, dtype):
    """A mask and padded columns: log-probabilities, then those of policies that are a little apart."""
    draw = variety()
    lengths = response_lengths(draw, TOKENS)
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    log_prob = [-0.1 - 3 * next(draw) for _ in range(sum(lengths))]
    values = [log_prob] + [[min(x + 0.2 * (next(draw) - 0.5), 0.0) for x in log_prob] for _ in range(columns - 1)]
    padded = []
    for column in values:
        padded.append(torch.zeros(mask.shape, dtype=dtype))
        padded[-1][mask] = torch.tensor(column, dtype=dtype)
    return mask.to(dtype), padded


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


def grpo(mask, policy, behaviour):
    """Rewards and groups cost nothing beside the tokens: alternating advantages stand for them."""
    advantage = 1 - 2 * (torch.arange(len(mask), dtype=policy.dtype)[:, None] % 2)
    ratio = torch.exp(policy - behaviour)
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    return -((surrogate * mask).sum(1) / mask.sum(1)).mean()


@functools.cache
def discounts(length, dtype):
    """The triangular matrix whose product with losses is the discounted sum of all later ones."""
    places = torch.arange(length)
    later = places[:, None] - places[None, :]
    return torch.where(later >= 0, GAMMA ** later.clamp(min=0).to(dtype), 0.0)


def ift(mask, policy, discounts):
    """A product with a matrix that is computed once: a loop over tokens takes PyTorch far longer."""
    loss = -policy * mask
    sums = loss @ discounts
    return ((sums * loss).sum(1) / (sums * mask).sum(1)).mean()


# The loss, its columns, and what else it reads that is computed once.
METHODS = {"sft": (sft, 1, None), "dpo": (dpo, 2, None), "orpo": (orpo, 1, None), "simpo": (simpo, 1, None),
           "ift": (ift, 1, discounts), "grpo": (grpo, 2, None)}


def measure(function, columns, beside, dtype):
    """Minimum microseconds of loss and gradient."""
    mask, (policy, *rest) = inputs(columns, dtype)
    if beside is not None:
        rest.append(beside(mask.shape[1], dtype))
    policy.requires_grad_()
    times = []
    for _ in range(REPETITIONS + 3):
        policy.grad = None
        start = time.perf_counter()
        function(mask, policy, *rest).backward()
        times.append(time.perf_counter() - start)
    return min(times[3:]) * 1e6  # the first ones compile


def ours():
    """For each method and number of tokens: the tokens that the step has, and minimum microseconds."""
    command = ["cargo", "bench", "-p", "objective", "--bench", "minimum", "--", *METHODS]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    fields = (line.split() for line in lines)
    return {(name, int(asked)): (int(tokens), float(time)) for name, asked, tokens, time in fields}


def main():
    torch.set_num_threads(1)
    load = [os.getloadavg()[0]]
    times = ours()
    rows = {}
    for name, (function, columns, beside) in METHODS.items():
        tokens, microseconds = times[name, TOKENS]
        many_tokens, many_microseconds = times[name, MANY_TOKENS]
        growth = many_microseconds / many_tokens / (microseconds / tokens)
        rows[name] = row = {"tokens": tokens, "microseconds": microseconds,
                            "time_a_token_at_1m_over_64k": growth}
        for label, dtype in (("float64", torch.float64), ("float32", torch.float32)):
            for kind, run in (("eager", function), ("compiled", torch.compile(function, dynamic=False))):
                theirs = measure(run, columns, beside, dtype)
                row |= {f"pytorch_{kind}_{label}_microseconds": theirs, f"ratio_{kind}_{label}": theirs / microseconds}
        ratios = "   ".join(f"{kind} {label} {row[f'ratio_{kind}_{label}']:5.1f}x"
                            for label in ("float64", "float32") for kind in ("eager", "compiled"))
        print(f"{name:6} {microseconds:8.1f} us   a token at 1M {growth:4.1f}x   {ratios}", flush=True)
    load.append(os.getloadavg()[0])
    record.write(__file__, ("torch",), repetitions=REPETITIONS, load_average=load, methods=rows)


if __name__ == "__main__":
    main()
