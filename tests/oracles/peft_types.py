"""`adapter_config.json` of every kind of adapters that PEFT has, with its own defaults."""

import json
import pathlib
import tempfile

from generator import write
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

# What some kinds cannot be without.
NEEDED = {"ADALORA": {"total_step": 10}, "VBLORA": {"target_modules": ["q_proj"]}}


def config(kind, build):
    for fields in ({"target_modules": ["q_proj", "v_proj"]}, {}, {"num_virtual_tokens": 8}):
        try:
            made = build(task_type="CAUSAL_LM", **fields | NEEDED.get(kind, {}))
            break
        except (ImportError, TypeError, ValueError):
            continue
    else:
        return None
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        return json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())


if __name__ == "__main__":
    kinds = {kind.value: config(kind.value, build) for kind, build in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    print("left out:", [kind for kind, made in kinds.items() if made is None])
    write(__file__, ["peft"], configs=[made for made in kinds.values() if made])
