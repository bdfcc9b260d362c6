"""What the oracle scripts share: cases with long responses, versions in force, and JSON beside the script."""

import json
import pathlib
import platform
from importlib.metadata import version

REPEAT, STRIDE = 256, 255


def case(name, line, evaluate):
    """A line with its answer."""
    return {"name": name, "line": line, **evaluate(line)}


def long_case(name, line, evaluate):
    """The same with REPEAT times as long responses. To keep it short, the line is as before, and every STRIDE-th cotangent is kept."""
    ragged = lambda rows: isinstance(rows[0], list)
    longer = {side: {key: [row * REPEAT for row in rows] if ragged(rows) else rows for key, rows in columns.items()}
              if "log_prob" in columns else columns for side, columns in line.items()}
    answer = evaluate(longer)
    answer["cotangents"] = {side: {column: [row[::STRIDE] for row in rows] for column, rows in columns.items()}
                            for side, columns in answer["cotangents"].items()}
    return {"name": f"{name}, 4096 tokens", "repeat": REPEAT, "stride": STRIDE, "line": line, **answer}


def write(script, packages, **content):
    """Writes `content` beside `script`, headed by the versions of `packages`."""
    path = pathlib.Path(script)
    generator = {"script": path.name, "python": platform.python_version()}
    generator |= {package: version(package) for package in packages}
    text = json.dumps({"generator": generator, **content}, separators=(",", ":"), allow_nan=False)
    path.with_suffix(".json").write_text(text.replace('{"name"', '\n{"name"') + "\n")
