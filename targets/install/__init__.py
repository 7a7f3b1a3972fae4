"""A packed bundle comes onto the device: signature, unpacking, bundles side by side, the switch between them.

Device code: Python 3.9 and the standard library (tomli for Python below 3.11). Nothing here needs numpy or an engine
library.
"""

from motedge.targets.install.archive import Archive
from motedge.targets.install.job import InstallOptions, InstallReport, install
from motedge.targets.install.listing import PackedFile, PackListing, Release
from motedge.targets.install.store import Installed, Store

__all__ = [
    "Archive",
    "InstallOptions",
    "InstallReport",
    "Installed",
    "PackListing",
    "PackedFile",
    "Release",
    "Store",
    "install",
]
