"""Which job store a server has, and where."""

from pathlib import Path

from ..errors import UnavailableError
from ..options.jobs import JobOptions
from ..plugins import PluginManager
from .store import OpenJobStore

#: Below the folder of the results, so that jobs and their files stay together.
FOLDER_NAME = ".sglang-jobs"


def open_job_store(manager: PluginManager, options: JobOptions, output_folder: Path) -> OpenJobStore:
    """Open the store that the options choose.

    :raises ConfigError: if nobody brings a store of that name.
    :raises UnavailableError: if it cannot work here.
    :raises OutputError: if it cannot be opened, is damaged, or another server has it.
    """
    store = manager.job_stores.get(options.job_store)
    availability = store.probe()
    if not availability.is_available:
        raise UnavailableError(f"job store {store.name!r}: {availability.reason}", availability.remedy)
    return store.open(options.job_store_path or output_folder / FOLDER_NAME)
