"""SmolLM2-135M-Instruct's log-probabilities, in float32, of the first pairs of a file, and what it says next: smollm2_scores.py FOLDER PREFERENCES.jsonl."""

import itertools
import json
import sys

import checkpoints
from generator import write
from transformers import AutoTokenizer

PAIRS, NEW = 4, 24


def scored(model, ids, prompt, turns):
    before, whole = ids(prompt, add_generation_prompt=True), ids(prompt + turns)
    assert whole[: len(before)] == before
    log_prob = checkpoints.log_prob(model, whole)[len(before) - 1 :]
    return {"prompt_ids": before, "response_ids": whole[len(before) :], "log_prob": checkpoints.rounded(log_prob.tolist())}


def answers(folder, path):
    model, tokenizer = checkpoints.load(folder), AutoTokenizer.from_pretrained(folder)
    ids = lambda messages, **more: tokenizer.apply_chat_template(messages, return_dict=True, **more)["input_ids"]
    with open(path) as lines:
        pairs = [json.loads(line) for line in itertools.islice(lines, PAIRS)]
    first = ids(pairs[0]["prompt"], add_generation_prompt=True)
    return {"pairs": [{side: scored(model, ids, pair["prompt"], pair[side]) for side in ("chosen", "rejected")} for pair in pairs],
            "greedy": {"prompt_ids": first, "response_ids": checkpoints.greedy(model, first, NEW)}}


if __name__ == "__main__":
    write(__file__, ["torch", "transformers", "tokenizers", "jinja2"], **answers(*sys.argv[1:]))
