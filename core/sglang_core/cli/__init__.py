"""The ``sglang`` command line, assembled from plugins."""

from .app import create_cli, main
from .interrupt import cancel_on_signals
from .settings_command import SettingsCommand, pass_settings

__all__ = ["SettingsCommand", "cancel_on_signals", "create_cli", "main", "pass_settings"]
