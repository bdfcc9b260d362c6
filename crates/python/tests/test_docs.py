"""The programs of the documentation."""

import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "src" / "python.md"
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_programs_of_the_page_run_one_after_another():
    names, missing, printed = {}, [], io.StringIO()
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(programs) >= 5
    for program in programs:
        # A program without a library cannot run, nor those that read what it would have left.
        imported = re.findall(r"^import (torch|jax|transformers)", program, re.MULTILINE)
        missing += [library for library in imported if not importlib.util.find_spec(library)]
        if not missing:
            with contextlib.redirect_stdout(printed):
                exec(compile(program, str(PAGE), "exec"), names)
    assert names["answer"].loss > 0
    assert "beta = 0.1: a number, 1e-9 <= beta <= 1e6" in printed.getvalue()
    assert "Formula\n-------" in printed.getvalue()


def test_the_program_of_the_readme_runs():
    pytest.importorskip("torch")
    [program] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["value"].item() > 0 and names["log_prob"].grad[0].lt(0).all()


def test_the_notebook_prints_what_it_says():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    cells = json.loads((EXAMPLES / "first_look.ipynb").read_text())["cells"]
    names, printed = {}, 0
    for cell in cells:
        if cell["cell_type"] == "code":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("".join(cell["source"]), "first_look.ipynb", "exec"), names)
            recorded = ["".join(own["text"]) for own in cell["outputs"] if own["output_type"] == "stream"]
            assert output.getvalue() == "".join(recorded)
            printed += len(recorded)
    assert printed >= 5
    assert len(names["axes"].lines) == 4
