"""Which library writes a format, and whether it is there, without importing it."""

from functools import cache
from importlib import metadata, util

from attrs import frozen

from sglang_core import Availability


@frozen(kw_only=True)
class Library:
    """A Python package that does the encoding: the name to import, the distribution it comes in, how to get it."""

    module: str
    distribution: str
    title: str
    remedy: str

    def probe(self) -> Availability:
        """Say whether it is installed, with its version; found out once, for a server asks with every request."""
        return _look_for(self)


@cache
def _look_for(library: Library) -> Availability:
    if util.find_spec(library.module) is None:
        return Availability.no(f"{library.title} is not installed", library.remedy)
    try:
        return Availability.yes(f"{library.title} {metadata.version(library.distribution)}")
    except metadata.PackageNotFoundError:  # importable, but from no installed distribution
        return Availability.yes(library.title)


PILLOW = Library(module="PIL", distribution="pillow", title="Pillow", remedy="pip install pillow")
PYAV = Library(module="av", distribution="av", title="PyAV", remedy='pip install "sglang-plugins[video]"')
