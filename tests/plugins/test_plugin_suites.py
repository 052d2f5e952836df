"""Each package under ``plugins`` passes its own tests, run as its author runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", sorted((ROOT / "plugins").glob("*/")), ids=lambda folder: folder.name)
def test_plugin_passes_its_tests(folder, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests"]

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", sorted((ROOT / "plugins").glob("*/")), ids=lambda folder: folder.name)
def test_plugin_is_a_whole_package(folder):
    module = folder / folder.name.replace("-", "_")

    missing = [
        path.relative_to(folder).as_posix()
        for path in (
            folder / "pyproject.toml",
            folder / "README.md",
            folder / "CHANGELOG.md",
            folder / "LICENSE",
            folder / "tests",
            module / "__init__.py",
            module / "py.typed",
        )
        if not path.exists()
    ]

    assert missing == []
