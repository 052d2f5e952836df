"""Settings from the receipt inside an output."""

import logging

from sglang_core import PluginManager, Settings

from .config import RepeatOptions

logger = logging.getLogger(__name__)


def with_receipt(manager: PluginManager, settings: Settings) -> Settings:
    """Return the settings completed by the receipt of ``--from-file``, if one is given.

    :raises ConfigError: if the file carries none.
    """
    path = settings.of(RepeatOptions).from_file
    if path is None:
        return settings
    from sglang_core import installed_versions, read_receipt, settings_from_receipt, version_differences

    receipt = read_receipt(path, manager.media_encoders)
    for difference in version_differences(receipt, installed_versions()):
        logger.warning("%s was made with another version, the result may differ: %s", path, difference)
    return settings_from_receipt(settings, receipt, path)
