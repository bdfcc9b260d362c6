"""What transformers draws tokens from by a `generation_config.json`: the probabilities after its own processors, and greedy continuations."""

import json
import pathlib
import random
import tempfile

import torch
from checkpoints import HERE, VOCABULARY, load, rounded
from generator import write
from transformers import GenerationConfig

torch.set_num_threads(1)
FILES = [
    {"eos_token_id": 2},
    {"temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 3]},
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    {"do_sample": True, "temperature": 1.7, "top_k": 7},
    {"do_sample": True, "top_k": 0, "min_p": 0.1},
    {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.3},
    {"do_sample": False, "repetition_penalty": 0.7, "top_k": 5},
]


def probabilities(model, file, ids, scores):
    """Of each token that may be drawn behind `ids`; none where the most probable one is taken."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "generation_config.json").write_text(json.dumps(file))
        model.generation_config = GenerationConfig.from_pretrained(folder)
    config, _ = model._prepare_generation_config(None)
    processors = model._get_logits_processor(config, input_ids_seq_length=len(ids), device="cpu")
    whole = torch.tensor([ids])
    processed = processors(whole, scores[None].clone())[0]
    kept = torch.softmax(processed.double(), dim=-1)
    drawn = {str(token): rounded([value])[0] for token, value in enumerate(kept.tolist()) if value > 0} if config.do_sample else None
    answer = model.generate(whole, attention_mask=torch.ones_like(whole), do_sample=False, max_new_tokens=12, eos_token_id=None,
                            repetition_penalty=config.repetition_penalty)[0].tolist()
    return {"file": file, "drawn": drawn, "greedy": answer[len(ids):]}


if __name__ == "__main__":
    draw = random.Random(7)
    model = load(HERE / "llama")
    ids = [draw.randrange(VOCABULARY) for _ in range(9)]
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids])).logits[0, -1]
    write(__file__, ["torch", "transformers"], checkpoint="llama", ids=ids, logits=rounded(scores.tolist(), 9),
          cases=[probabilities(model, file, ids, scores) for file in FILES])
