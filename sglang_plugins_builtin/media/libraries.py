"""Which library writes a format, and whether it is there, without importing it."""

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
        """Say whether it is installed, with its version."""
        if util.find_spec(self.module) is None:
            return Availability.no(f"{self.title} is not installed", self.remedy)
        try:
            return Availability.yes(f"{self.title} {metadata.version(self.distribution)}")
        except metadata.PackageNotFoundError:  # importable, but from no installed distribution
            return Availability.yes(self.title)


PILLOW = Library(module="PIL", distribution="pillow", title="Pillow", remedy="pip install pillow")
PYAV = Library(module="av", distribution="av", title="PyAV", remedy='pip install "sglang-plugins[video]"')
