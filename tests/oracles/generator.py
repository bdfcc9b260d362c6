"""What the oracle scripts share: versions in force, and JSON beside the script."""

import json
import pathlib
import platform
from importlib.metadata import version


def write(script, packages, **content):
    """Writes `content` beside `script`, headed by the versions of `packages`."""
    path = pathlib.Path(script)
    generator = {"script": path.name, "python": platform.python_version()}
    generator |= {package: version(package) for package in packages}
    text = json.dumps({"generator": generator, **content}, separators=(",", ":"), allow_nan=False)
    path.with_suffix(".json").write_text(text.replace('{"name"', '\n{"name"') + "\n")
