"""A tiny checkpoint whose configuration ties the output's weights to the embedding table while its file says otherwise, as transformers loads it."""

import json
import pathlib
import random
import shutil
import tempfile

import torch
from checkpoints import VOCABULARY, greedy, load, log_prob, rounded
from generator import write
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent / "checkpoints"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Each function makes a file's tensors from those of a tied checkpoint. The output weights are the rows of the table in
# reverse order.
CASES = {
    "as the table": lambda table: {EMBEDDING: table, HEAD: table.clone()},
    "other than the table": lambda table: {EMBEDDING: table, HEAD: table.flip(0).contiguous()},
    "in the table's place": lambda table: {HEAD: table.flip(0).contiguous()},
}


def answer(name, case, ids):
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / name
        shutil.copytree(HERE / name, folder)
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | CASES[case](tensors.pop(EMBEDDING)), folder / "model.safetensors", metadata={"format": "pt"})
        model = load(folder)
        tied = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        return {"name": case, "checkpoint": name, "tied": tied, "ids": ids,
                "log_prob": rounded(log_prob(model, ids).tolist()), "greedy": greedy(model, ids, 8)}


if __name__ == "__main__":
    draw = random.Random(11)
    ids = [draw.randrange(VOCABULARY) for _ in range(17)]
    write(__file__, ["torch", "transformers", "safetensors"], cases=[answer("qwen2", case, ids) for case in CASES])
