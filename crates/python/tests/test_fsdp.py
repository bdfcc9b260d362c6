"""A model that is sharded over processes has the losses of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torch")
PROGRAM = Path(__file__).parents[1] / "examples" / "fsdp2.py"


def test_two_processes_have_the_losses_of_one(tmp_path):
    losses = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.json"
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", str(PROGRAM), str(file)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, *command], check=True, env=environment, timeout=600)
        losses.append(json.loads(file.read_text()))
    one, two = losses
    assert one.keys() == {"sft", "dpo", "grpo", "kto"}
    for name, expected in one.items():
        assert two[name] == pytest.approx(expected, abs=1e-5), name
        assert len(set(expected)) == len(expected) == 4
