"""Build the wheel and the sdist, check them, install the wheel into a fresh environment, and drive it.

Run by ``tox -e package``. Prints what it does; the first failure ends it with exit code 1.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_WHEEL_BYTES = 40 * 2**20
PROMPT = "a red circle on a white background"
EXAMPLES = ("sglang-example-attention", "sglang-example-family")


def run(*command: str | Path, cwd: Path | None = None, exit_code: int = 0) -> str:
    """Run a command, show it, and return its stdout; another exit code than the expected one ends the check."""
    print("+", *command, flush=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean, stdout=subprocess.PIPE, text=True)
    if done.returncode != exit_code:
        print(done.stdout)
        sys.exit(f"exit code {done.returncode}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Return the wheel and the sdist; the wheel is built from the sdist, as an index would."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(folder.iterdir()))
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path) -> None:
    """Refuse a wheel without its types, licence or weights, or with tests and training in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/", 1)[0] for name in names if ".dist-info/" not in name}
    assert tops == {"sglang_core", "sglang_plugins_builtin"}, tops
    for needed in ("sglang_core/py.typed", "sglang_plugins_builtin/py.typed"):
        assert needed in names, f"{needed} is missing"
    assert any(name.endswith("licenses/LICENSE") for name in names), "the licence is missing"
    assert any(name.endswith("shapes-image/model_index.json") for name in names), "the embedded model is missing"
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES, f"the wheel has {wheel.stat().st_size:,} bytes"


def check_light_install(wheel: Path, folder: Path) -> None:
    """Without extras the command line works, and what needs torch says how to get it."""
    venv.create(folder, with_pip=True)
    python, sglang = folder / "bin" / "python", folder / "bin" / "sglang"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    assert "generate" in run(sglang, "--help")
    records = json.loads(run(sglang, "plugins", "list", "--json"))["plugins"]
    assert {record["state"] for record in records} == {"ok"}, records
    refused = subprocess.run([sglang, "generate", "--prompt", PROMPT], capture_output=True, text=True, cwd=folder)
    assert refused.returncode == 5, refused
    assert "pip install" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr, refused.stderr


def check_full_install(wheel: Path, folder: Path) -> None:
    """With all extras it makes the same picture twice, outside the source tree."""
    venv.create(folder, with_pip=True)
    python, sglang = folder / "bin" / "python", folder / "bin" / "sglang"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel}[all]")
    run(python, "-m", "pip", "check")
    first = json.loads(run(sglang, "generate", "--prompt", PROMPT, "--json", cwd=folder))
    path = Path(first["outputs"][0]["path"])
    again = json.loads(run(sglang, "generate", "--from-file", path, "--json", cwd=folder))
    other = Path(again["outputs"][0]["path"])
    assert path != other
    assert (folder / path).read_bytes() == (folder / other).read_bytes(), "the same request gave other bytes"


def check_plugins_of_strangers(folder: Path, environment: Path) -> None:
    """A model family and an attention backend from their wheels: chosen by name, run, and gone when removed."""
    python, sglang = environment / "bin" / "python", environment / "bin" / "sglang"
    for name in EXAMPLES:
        source = folder / "sources" / name
        shutil.copytree(ROOT / "plugins" / name, source, ignore=shutil.ignore_patterns("__pycache__"))
        run(sys.executable, "-m", "build", "--outdir", folder / name, source)
        run(sys.executable, "-m", "twine", "check", "--strict", *sorted((folder / name).iterdir()))
        (wheel,) = (folder / name).glob("*.whl")
        run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    run(python, "-m", "pip", "check")
    model = folder / "mosaic"
    run(python, "-m", "sglang_example_family", model)
    words = [sglang, "generate", "--model-path", model, "--prompt", PROMPT, "--backend", "sglang", "--json"]
    softmax = ["--attention-backend", "plain_softmax"]
    made = json.loads(run(*words, *softmax, cwd=folder))["outputs"][0]
    assert made["receipt"]["plan"]["attention"] == "plain_softmax", made
    assert (folder / made["path"]).stat().st_size > 0
    run(python, "-m", "pip", "uninstall", "-q", "-y", EXAMPLES[0])
    run(*words, *softmax, cwd=folder, exit_code=2)
    run(*words, cwd=folder)
    run(python, "-m", "pip", "uninstall", "-q", "-y", EXAMPLES[1])
    run(*words, cwd=folder, exit_code=5)


def main() -> None:
    """Run every check in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel, _ = build(folder / "dist")
        check_contents(wheel)
        check_light_install(wheel, folder / "light")
        check_full_install(wheel, folder / "full")
        check_plugins_of_strangers(folder / "strangers", folder / "full")
    print("4 passed, 0 failed")


if __name__ == "__main__":
    main()
