"""What the transform marks for compilation; compiling itself is torch's."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sglang_core import ExecutionPlan, Origin, Settings, UnavailableError
from sglang_plugins_builtin.torch_compile.config import TORCH_COMPILE_GROUP, TorchCompileOptions
from sglang_plugins_builtin.torch_compile.transform import TorchCompile

#: torch imports what it deprecates itself when it compiles.
pytestmark = pytest.mark.filterwarnings("ignore")


def plan_with(enabled: bool) -> ExecutionPlan:
    settings = Settings(
        values={TorchCompileOptions: TorchCompileOptions(enable_torch_compile=enabled)},
        origins={"enable_torch_compile": Origin(kind="flag", label="--enable-torch-compile")} if enabled else {},
        groups=(TORCH_COMPILE_GROUP,),
    )
    return cast("ExecutionPlan", SimpleNamespace(settings=settings, model=SimpleNamespace(reference="some/model")))


def pipeline_of(**components: Any) -> Any:
    return SimpleNamespace(components=components)


def test_it_is_wanted_when_the_setting_asks_for_it() -> None:
    assert TorchCompile().wanted(plan_with(True)) == "--enable-torch-compile"
    assert TorchCompile().wanted(plan_with(False)) is None


def test_a_compiler_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    answer = TorchCompile().probe()

    assert not answer.is_available
    assert "g++" in answer.remedy


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the transform sets from the tests that follow."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


def test_repeated_blocks_are_compiled_and_the_rest_is_not() -> None:
    import torch

    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

        def compile(self, **settings: Any) -> None:
            super().compile(backend="eager")

    class Denoiser(torch.nn.Module):
        _repeated_blocks = ("Block",)

        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    transformer, vae = Denoiser(), Block()

    TorchCompile().apply(pipeline_of(transformer=transformer, vae=vae), plan_with(True))

    compiled = [module._compiled_call_impl is not None for module in (*transformer.blocks, transformer, vae)]
    assert compiled == [True, True, False, False]
    assert transformer(torch.zeros(1)).item() == 2


def test_a_denoiser_without_repeated_blocks_is_compiled_whole() -> None:
    import torch

    compiled = []

    class Denoiser(torch.nn.Linear):
        def compile(self, *_: Any, **__: Any) -> None:
            compiled.append(self)

    unet = Denoiser(2, 2)

    TorchCompile().apply(pipeline_of(unet=unet, scheduler=object()), plan_with(True))

    assert compiled == [unet]


def test_a_pipeline_without_a_denoiser_is_refused() -> None:
    with pytest.raises(UnavailableError, match="some/model has no denoiser to compile"):
        TorchCompile().apply(pipeline_of(vae=object()), plan_with(True))


@pytest.mark.parametrize(("given", "expected"), [(None, "{root}/compiled"), ("/chosen", "/chosen")])
def test_compiled_code_is_kept_among_the_caches_of_the_user(
    given: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("SGLANG_DIFFUSION_CACHE_ROOT", str(tmp_path))
    if given is not None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given)

    TorchCompile().apply(pipeline_of(unet=torch.nn.Linear(2, 2)), plan_with(True))

    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == expected.format(root=tmp_path)


def test_no_run_takes_place_in_the_middle_of_another() -> None:
    import torch

    pipeline = pipeline_of(transformer=torch.nn.Identity())
    pipeline.can_interleave = True

    TorchCompile().apply(pipeline, plan_with(True))

    assert pipeline.can_interleave is False
