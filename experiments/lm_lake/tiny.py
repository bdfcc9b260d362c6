"""A tiny random model with a tokenizer and a chat template, to try things without a download: what it learns means nothing.

usage: tiny.py FOLDER [CHECKPOINT]    run in the checkout

It is CHECKPOINT of tests/oracles/checkpoints, llama unless given, with the tokenizer tests/oracles/tokenizers/small, which has as many
tokens, and room for long prompts.
"""

import json
import pathlib
import shutil
import sys

ORACLES = pathlib.Path(__file__).parents[2] / "tests" / "oracles"
TOKENIZER = ORACLES / "tokenizers" / "small"
CHECKPOINTS = sorted(folder.name for folder in (ORACLES / "checkpoints").iterdir())


def tiny(folder, checkpoint="llama"):
    folder = pathlib.Path(folder)
    for part in (ORACLES / "checkpoints" / checkpoint, TOKENIZER):
        shutil.copytree(part, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 15}, indent=1))


if __name__ == "__main__":
    tiny(*sys.argv[1:])
