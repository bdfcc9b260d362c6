"""A tiny random Llama with a tokenizer and a chat template, to try `run.sh` without a download: what it learns means nothing.

usage: tiny.py FOLDER    run in the checkout

The layers are those of tests/oracles/checkpoints/llama, the tokenizer is tests/oracles/tokenizers/chatml; the embeddings and the head
are drawn anew, for as many tokens as it has.
"""

import array
import json
import pathlib
import random
import shutil
import struct
import sys

ORACLES = pathlib.Path(__file__).parents[2] / "tests" / "oracles"
DRAWN = ("model.embed_tokens.weight", "lm_head.weight")


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, tokenizer = ORACLES / "checkpoints" / "llama", ORACLES / "tokenizers" / "chatml"
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)
    tokens = len(json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"])
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": tokens}, indent=1))

    data = (checkpoint / "model.safetensors").read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8:8 + length]), data[8 + length:]
    draw, body, described = random.Random(0), b"", {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        own, shape = tensors[begin:end], tensor["shape"]
        if name in DRAWN:
            shape = [tokens, shape[1]]
            own = array.array("f", (draw.gauss(0.0, 0.1) for _ in range(shape[0] * shape[1]))).tobytes()
        described[name] = {"dtype": tensor["dtype"], "shape": shape, "data_offsets": [len(body), len(body) + len(own)]}
        body += own
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


main(sys.argv[1])
