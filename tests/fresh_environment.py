"""Wheels as strangers build them, and fresh environments to install them into."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


class Environment:
    """A fresh virtual environment that sees the packages of the one that runs the tests, and runs ``sglang``."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        scheme = {"base": str(folder), "platbase": str(folder)}
        scripts = Path(sysconfig.get_path("scripts", "venv", scheme))
        site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        # addsitedir, not the bare path: an editable installation is a .pth file itself.
        host = sysconfig.get_path("purelib")
        (site_packages / "host.pth").write_text(f"import site; site.addsitedir({host!r})\n", encoding="utf-8")
        self.python = scripts / ("python.exe" if os.name == "nt" else "python")
        self._folder = folder

    def pip(self, *words: object) -> None:
        """Let the pip of the tests work on this environment."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *words]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, wheel: Path) -> None:
        self.pip("install", "--quiet", "--no-index", "--no-deps", wheel)

    def sglang(self, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "PYTHONPATH"))}
        return subprocess.run(
            [self.python, "-m", "sglang_core", *(str(word) for word in words)],
            cwd=self._folder,
            env={**kept, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def settings(self, *words: object, **variables: str) -> dict[str, str]:
        """Return ``--print-config`` of ``generate`` as key and the rest of its line."""
        done = self.sglang("generate", *words, "--print-config", **variables)
        assert done.returncode == 0, done.stderr
        return dict(line.split(": ", 1) for line in done.stdout.splitlines() if not line.startswith("#"))


def build_wheel_of_copy(source: Path, folder: Path) -> Path:
    """Build a package of the repository without leaving traces beside it."""
    copy = folder / "sources" / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "dist"))
    return build_wheel(copy, folder / "built")


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a package with pip and hatchling, without network."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", folder, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob(f"{source.name.replace('-', '_')}-*.whl"))
