"""The programs of the documentation."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "src" / "python.md"


def test_the_programs_of_the_page_run_one_after_another():
    names, missing, printed = {}, [], io.StringIO()
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(programs) >= 5
    for program in programs:
        # A program without a library cannot run, nor those that read what it would have left.
        imported = re.findall(r"^import (torch|jax)", program, re.MULTILINE)
        missing += [library for library in imported if not importlib.util.find_spec(library)]
        if not missing:
            with contextlib.redirect_stdout(printed):
                exec(compile(program, str(PAGE), "exec"), names)
    assert names["answer"].loss > 0
    assert "beta = 0.1: a number, 1e-9 <= beta <= 1e6" in printed.getvalue()
    assert "Formula\n-------" in printed.getvalue()
