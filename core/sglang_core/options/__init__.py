"""Settings: one attrs class, four faces (flag, configuration key, environment variable, documentation)."""

from .fields import OptionField, option
from .groups import OptionGroup
from .settings import Origin, Settings

__all__ = ["OptionField", "OptionGroup", "Origin", "Settings", "option"]
