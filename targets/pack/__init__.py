"""A bundle, less what one device does not need, in one archive that installs itself there."""

from motedge.targets.pack.job import PackOptions, PackReport, pack, plan_pack

__all__ = ["PackOptions", "PackReport", "pack", "plan_pack"]
