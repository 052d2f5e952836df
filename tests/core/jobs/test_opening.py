"""Which store a server has, and where."""

import pytest

import sglang_plugins_builtin.sqlite_jobs
from sglang_core import ConfigError, JobOptions, UnavailableError
from sglang_core.jobs.opening import open_job_store
from sglang_core.testing import bare_manager


@pytest.fixture
def stores():
    manager = bare_manager()
    manager.register(sglang_plugins_builtin.sqlite_jobs, "sqlite_jobs")
    return manager


def test_the_store_lies_beside_the_results_unless_told_otherwise(stores, tmp_path):
    open_job_store(stores, JobOptions(), tmp_path).close()
    open_job_store(stores, JobOptions(job_store_path=tmp_path / "own"), tmp_path).close()
    open_job_store(stores, JobOptions(job_store="memory", job_store_path=tmp_path / "none"), tmp_path).close()

    assert (tmp_path / ".sglang-jobs" / "jobs.sqlite3").is_file()
    assert (tmp_path / "own" / "jobs.sqlite3").is_file()
    assert not (tmp_path / "none").exists()


def test_an_unknown_store_is_refused_with_those_there_are(stores, tmp_path):
    with pytest.raises(ConfigError) as refused:
        open_job_store(stores, JobOptions(job_store="sqlit"), tmp_path)

    assert refused.value.problem == "unknown job store 'sqlit' (known: memory, sqlite)"
    assert refused.value.remedy == "use 'sqlite'"


def test_a_python_without_sqlite_is_told_what_helps(stores, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError) as refused:
        open_job_store(stores, JobOptions(), tmp_path)

    assert refused.value.problem == "job store 'sqlite': this Python has no module _sqlite3"
    assert refused.value.remedy == "use --job-store memory"
