"""Trains a tiny Llama that is sharded over processes (FSDP2), by four losses.

torchrun --nproc-per-node 2 fsdp2.py [FILE.json]

Each process has its share of every step's responses. `process_group` sums the counts of the step, and gathers the
columns for objectives that compare all responses (kto), so the losses are those of one process. On CPUs the processes
exchange by gloo, on GPUs by NCCL.
"""
import json
import os
import sys

import torch
import torch.distributed as distributed
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

import objective_lake as ol
from objective_lake.torch import loss

STEPS, RESPONSES, PROMPT, LENGTH = 4, 8, 3, 12
OBJECTIVES = {"sft": {}, "dpo": {"beta": 0.5}, "grpo": {"clip": 0.1}, "kto": {"beta": 0.5}}


def tiny_llama(seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LENGTH, initializer_range=0.2,
    ))


def sharded(model, device):
    model.to(device)
    for layer in model.model.layers:
        fully_shard(layer)
    return fully_shard(model)


def train(name, rank, ranks, device):
    """The loss of each step, over all processes."""
    policy = sharded(tiny_llama(0), device)
    # The reference, which also sampled the responses, is small and whole.
    reference = tiny_llama(1).to(device).requires_grad_(False)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.5)
    objective = ol.objective(name, **OBJECTIVES[name])

    draw = torch.Generator().manual_seed(7)
    ids = torch.randint(32, (RESPONSES, LENGTH), generator=draw)
    ends = torch.randint(PROMPT + 1, LENGTH + 1, (RESPONSES,), generator=draw)
    rewards = torch.randn(RESPONSES, generator=draw)
    places = torch.arange(1, LENGTH)
    mask = (places >= PROMPT) & (places < ends[:, None])
    ids, mask, rewards = ids.to(device), mask.to(device), rewards.to(device)
    groups = torch.arange(RESPONSES, device=device) // 4

    def side(rows):
        """The columns of these responses."""
        log_prob, reference_log_prob = (
            model(input_ids=ids[rows, :-1]).logits.float().log_softmax(-1).gather(-1, ids[rows, 1:, None])[..., 0]
            for model in (policy, reference)
        )
        own = {"log_prob": log_prob, "mask": mask[rows], "reference_log_prob": reference_log_prob}
        return {column: own[column] for column in own if column == "mask" or column in objective.columns}

    share = RESPONSES // ranks
    rows = list(range(rank * share, (rank + 1) * share))
    losses = []
    for _ in range(STEPS):
        if objective.data == "preferences":
            columns = {"chosen": side(rows[0::2]), "rejected": side(rows[1::2])}
        else:
            columns = side(rows)
        if objective.data == "labelled":
            columns["desirable"] = rewards[rows] > 0
            with torch.no_grad():
                columns["mismatched"] = side(rows[1:] + rows[:1])
        if objective.data == "groups":
            with torch.no_grad():
                given = reference(input_ids=ids[rows, :-1]).logits.log_softmax(-1).gather(-1, ids[rows, 1:, None])
            columns |= {"behaviour_log_prob": given[..., 0], "reward": rewards[rows], "group": groups[rows]}
        value, _ = loss(objective, process_group=distributed.group.WORLD, **columns)
        (value * ranks).backward()  # FSDP averages gradients
        optimizer.step()
        optimizer.zero_grad()
        whole = value.detach()
        distributed.all_reduce(whole)
        losses.append(whole.item())
    return losses


def main():
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    losses = {name: train(name, rank, ranks, device) for name in OBJECTIVES}
    distributed.destroy_process_group()
    if rank == 0:
        for name, own in losses.items():
            print(f"{name:5}", *(f"{value:9.6f}" for value in own))
        if len(sys.argv) > 1:
            with open(sys.argv[1], "w") as file:
                json.dump(losses, file)


if __name__ == "__main__":
    main()
