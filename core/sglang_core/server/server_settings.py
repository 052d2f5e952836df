"""Which settings of a command a server follows, and what its processes are told of them."""

from pathlib import Path

from attrs import evolve

from ..errors import ConfigError
from ..options import Settings
from ..options.host import OutputOptions
from ..options.server import ServerOptions
from ..outputs import check_writable


def refuse_two_places(settings: Settings) -> None:
    """Refuse a host or port beside a socket that has neither.

    :raises ConfigError: naming the setting.
    """
    options = settings.of(ServerOptions)
    where = "uds" if options.uds is not None else "fd"
    if options.uds is None and options.fd is None:
        return
    for name in ("host", "port"):
        if settings.is_given(name):
            label = settings.origin(name).label
            raise ConfigError(f"{label} does not apply: the server listens on --{where}", "leave one of them out")


def refuse_settings_of_one_run(settings: Settings) -> None:
    """Refuse output settings that only a single run can follow.

    :raises ConfigError: naming the setting.
    """
    for name in ("output_file_name", "output_file_path", "return_frames"):
        if settings.is_given(name):
            label = settings.origin(name).label
            raise ConfigError(f"{label} does not apply: a server names its files by the job", "leave it out")
    if not settings.of(OutputOptions).save_output:
        raise ConfigError(
            f"{settings.origin('save_output').label} does not apply: a server keeps its results for its clients",
            "leave it out, or delete results after a while with --job-retention",
        )


def for_ranks(settings: Settings) -> Settings:
    """Return the settings that the model's processes need: those of HTTP, its keys among them, stay here."""
    groups = tuple(group for group in settings.groups if group.settings is not ServerOptions)
    names = {field.name for group in groups for field in group.fields}
    origins = {name: origin for name, origin in settings.origins.items() if name in names}
    values = {kind: value for kind, value in settings.values.items() if kind is not ServerOptions}
    return evolve(settings, groups=groups, origins=origins, values=values)


def folders_of(settings: Settings) -> tuple[Path, Path]:
    """Return the folders of outputs and inputs, absolute.

    :raises ConfigError: if outputs have none.
    :raises OutputError: if one can not be written to.
    """
    output = settings.of(OutputOptions).output_path
    if not output:
        label = settings.origin("output_path").label
        raise ConfigError(f"{label}: a server needs a folder for its results", "--output-path outputs/")
    folders = Path(output).absolute(), settings.of(ServerOptions).input_save_path.absolute()
    for folder in folders:
        check_writable(folder)
    return folders
