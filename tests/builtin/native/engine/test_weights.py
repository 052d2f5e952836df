from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sglang_core import ComponentDescription, ModelLoadError
from sglang_core.safetensors_header import WeightFile
from sglang_plugins_builtin.native.engine import read_weights


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 2, bias=False)
        self.norm = nn.Linear(2, 2, bias=False)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))


def _described(folder: Path, *files: dict[str, torch.Tensor], suffix: str = "safetensors") -> ComponentDescription:
    (folder / "transformer").mkdir(exist_ok=True)
    weights = []
    for index, tensors in enumerate(files):
        path = f"transformer/part-{index}.{suffix}"
        if suffix == "safetensors":
            save_file(tensors, folder / path)
        else:
            torch.save(tensors, folder / path)
        weights.append(WeightFile(path=path, num_bytes=(folder / path).stat().st_size))
    return ComponentDescription(name="transformer", library="diffusers", class_name="Tiny", weights=tuple(weights))


def _values() -> dict[str, torch.Tensor]:
    return {
        "proj.weight": torch.arange(6.0).view(2, 3),
        "norm.weight": torch.eye(2),
        "count": torch.tensor([5]),
    }


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_every_weight_is_read_in_the_wanted_precision(tmp_path: Path, suffix: str) -> None:
    module = _Block()

    read_weights(module, _described(tmp_path, _values(), suffix=suffix), tmp_path, dtype=torch.bfloat16)

    assert module.proj.weight.dtype == torch.bfloat16
    assert module.proj.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert module.count.tolist() == [5]
    assert not module.proj.weight.requires_grad


def test_shards_are_read_one_after_the_other(tmp_path: Path) -> None:
    values = _values()
    first, second = (
        {"proj.weight": values["proj.weight"]},
        {"norm.weight": values["norm.weight"], "count": values["count"]},
    )
    module = _Block()

    read_weights(module, _described(tmp_path, first, second), tmp_path, dtype=torch.float32)

    assert module.norm.weight.tolist() == [[1, 0], [0, 1]]


def test_named_parts_stay_in_float32(tmp_path: Path) -> None:
    module = _Block()

    read_weights(module, _described(tmp_path, _values()), tmp_path, dtype=torch.bfloat16, float32_parts=("norm",))

    assert (module.norm.weight.dtype, module.proj.weight.dtype) == (torch.float32, torch.bfloat16)


def test_weight_that_stays_as_stored_is_mapped_not_copied(tmp_path: Path) -> None:
    module = nn.Linear(1024, 4096, bias=False)
    described = _described(tmp_path, {"weight": torch.zeros(4096, 1024)})

    read_weights(module, described, tmp_path, dtype=torch.float32)

    mapped = Path("/proc/self/maps")
    if not mapped.exists():
        pytest.skip("only Linux tells what is mapped")
    assert str(tmp_path / "transformer/part-0.safetensors") in mapped.read_text()


def test_renamed_and_unneeded_weights(tmp_path: Path) -> None:
    values = {"old.weight": torch.ones(2, 3), "extra": torch.ones(1)}
    module = nn.ModuleDict({"proj": nn.Linear(3, 2, bias=False)})
    names = {"old.weight": "proj.weight"}

    read_weights(module, _described(tmp_path, values), tmp_path, dtype=torch.float32, rename=names.get)

    assert module["proj"].weight.sum() == 6


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda values: values.pop("proj.weight"), "has no weight 'proj.weight'"),
        (lambda values: [values.pop(name) for name in list(values)[:2]], "has no weight 'norm.weight' and 1 more"),
        (lambda values: values.update({"stray": torch.ones(1)}), "a weight 'stray' that its class does not have"),
        (lambda values: values.update({"norm.weight": torch.ones(3)}), r"the shape \[3\], not \[2, 2\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change, problem: str) -> None:
    values = _values()
    change(values)
    values = values or {"count": torch.tensor([1])}

    with pytest.raises(ModelLoadError, match=problem) as caught:
        read_weights(_Block(), _described(tmp_path, values), tmp_path, dtype=torch.float32)

    assert caught.value.remedy


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    described = _described(tmp_path, _values())
    path = tmp_path / described.weights[0].path
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(ModelLoadError, match=r"part-0.safetensors can not be read"):
        read_weights(_Block(), described, tmp_path, dtype=torch.float32)


def test_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    described = _described(tmp_path, _values(), suffix="bin")
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (marker.touch, ())

    torch.save({"proj.weight": Trap()}, tmp_path / described.weights[0].path)

    with pytest.raises(Exception, match=r"can not be read|Weights only"):
        read_weights(_Block(), described, tmp_path, dtype=torch.float32)

    assert not marker.exists()


@pytest.mark.parametrize("kind", [torch.int8, torch.bool])
def test_a_weight_of_whole_numbers_is_refused(kind: torch.dtype, tmp_path: Path) -> None:
    values = {**_values(), "proj.weight": torch.ones(2, 3, dtype=kind)}

    with pytest.raises(ModelLoadError) as caught:
        read_weights(_Block(), _described(tmp_path, values), tmp_path, dtype=torch.float32)

    stored = str(kind).removeprefix("torch.")
    assert caught.value.problem == (
        f"weight 'proj.weight' of transformer is stored as {stored}, not as floating-point numbers"
    )
    assert caught.value.remedy == "use --backend diffusers, or a model that is not quantised"


def test_precisions_may_differ_from_weight_to_weight(tmp_path: Path) -> None:
    values = {**_values(), "norm.weight": torch.eye(2, dtype=torch.float16)}
    values["proj.weight"] = values["proj.weight"].to(torch.bfloat16)
    module = _Block()

    read_weights(module, _described(tmp_path, values), tmp_path, dtype=torch.float32)

    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert module.norm.weight.tolist() == [[1, 0], [0, 1]]


def test_a_pickled_file_of_the_old_format_is_read(tmp_path: Path) -> None:
    described = _described(tmp_path, _values(), suffix="bin")
    torch.save(_values(), tmp_path / described.weights[0].path, _use_new_zipfile_serialization=False)
    module = _Block()

    read_weights(module, described, tmp_path, dtype=torch.float32)

    assert module.norm.weight.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1, 2], "it holds something else than weights by name"),
        ({**_values(), 7: torch.ones(1)}, "it holds something else than weights by name"),
        ({**_values(), "step": 3}, "its 'step' is no weight"),
    ],
    ids=["a list", "a number as name", "a number as weight"],
)
def test_a_pickled_file_of_something_else_is_refused(content: object, problem: str, tmp_path: Path) -> None:
    described = _described(tmp_path, _values(), suffix="bin")
    torch.save(content, tmp_path / described.weights[0].path)

    with pytest.raises(ModelLoadError) as caught:
        read_weights(_Block(), described, tmp_path, dtype=torch.float32)

    assert caught.value.problem == f"weight file {described.weights[0].path} can not be read: {problem}"


def test_a_sparse_weight_is_refused(tmp_path: Path) -> None:
    values = {**_values(), "proj.weight": torch.ones(2, 3).to_sparse()}

    with pytest.raises(ModelLoadError, match="is stored as sparse_coo, not as floating-point numbers"):
        read_weights(_Block(), _described(tmp_path, values, suffix="bin"), tmp_path, dtype=torch.float32)
