"""The bundle: the folder in which the stages of motedge meet. Format motedge.bundle/v1, docs/architecture.md.

Runs on Python 3.9 with the standard library alone.
"""

from motedge.bundle.contract import Contract, TensorSpec
from motedge.bundle.folder import Bundle
from motedge.bundle.manifest import SCHEMA, WEIGHTLESS_GRAPHS, FileEntry, GraphEntry, Manifest, Variant

__all__ = [
    "SCHEMA",
    "WEIGHTLESS_GRAPHS",
    "Bundle",
    "Contract",
    "FileEntry",
    "GraphEntry",
    "Manifest",
    "TensorSpec",
    "Variant",
]
