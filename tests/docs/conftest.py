import importlib

import pytest
from page_blocks import ROOT

from sglang_core import create_plugin_manager


@pytest.fixture
def documented_plugins(monkeypatch):
    """The built-in plugins and those of the folder ``plugins``, whatever else is installed."""
    manager = create_plugin_manager(only_built_ins=True)
    for folder in sorted((ROOT / "plugins").glob("sglang-*")):
        monkeypatch.syspath_prepend(folder)
        module = folder.name.replace("-", "_")
        manager.register(importlib.import_module(module), folder.name.removeprefix("sglang-"))
    return manager
