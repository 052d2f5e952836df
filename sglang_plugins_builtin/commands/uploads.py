"""``sglang uploads``: the files whose upload has not worked yet."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglang_core import ConfigError, OutputError, PluginManager, Settings, SettingsCommand, pass_settings

if TYPE_CHECKING:
    from sglang_core import OpenStorage, PendingUpload

logger = logging.getLogger(__name__)


@click.command("uploads", cls=SettingsCommand, short_help="Show or repeat uploads that have not worked.")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("outputs"))
@click.option("--retry", is_flag=True, help="Upload the files now, and delete them here.")
@pass_settings
def uploads(settings: Settings, folder: Path, retry: bool) -> None:
    """Show the files of FOLDER that wait for their upload, or upload them now.

    \b
    sglang uploads outputs --retry --cloud-storage-type s3 --s3-bucket-name pictures
    """  # noqa: D301 - \b is click's mark for lines to keep
    from sglang_core import open_storage, pending_uploads  # only when used, so that --help is instant

    manager = click.get_current_context().ensure_object(PluginManager)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}", "name the folder that the files were saved in")
    found = pending_uploads(folder)
    if not retry:
        for pending in found:
            click.echo(f"{pending.path}  {pending.problem or 'its upload was cut short'}")
        return
    storage = open_storage(manager, settings)
    if storage is None:
        raise ConfigError("no storage is chosen", "set SGLANG_CLOUD_STORAGE_TYPE, or add --cloud-storage-type s3")
    try:
        failures = [error for pending in found if (error := _upload(storage, pending)) is not None]
    finally:
        storage.close()
    if failures:
        problem = f"{len(failures)} of {len(found)} files are still not uploaded: {failures[0].problem}"
        raise OutputError(problem, failures[0].remedy)


def _upload(storage: "OpenStorage", pending: "PendingUpload") -> OutputError | None:
    from sglang_core import upload_pending

    try:
        stored = upload_pending(storage, pending)
    except OutputError as error:
        logger.warning("%s: %s", pending.path, error.problem)
        return error
    if stored is None:
        logger.info("%s is being uploaded by another process", pending.path)
    else:
        click.echo(f"{pending.path} is now {stored.url}")
    return None
