"""How a comparison is recorded: its numbers with the date, the machine and the versions, as JSON beside the script."""

import datetime
import json
import os
import pathlib
import platform
from importlib.metadata import PackageNotFoundError, version


def versions(packages):
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def write(script, packages, **numbers):
    record = {"date": datetime.date.today().isoformat(), "machine": platform.processor() or platform.machine(),
              "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions(packages), "threads": 1}
    pathlib.Path(script).with_suffix(".json").write_text(json.dumps(record | numbers, indent=2) + "\n")
