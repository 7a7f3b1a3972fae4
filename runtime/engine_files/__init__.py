"""Engines on disk: what build.json says of each, and the gate that an engine passes before a library reads it.

Needs neither an engine library nor a GPU: the backend says what machine it is on, these checks say whether the file may
be deserialised there.
"""

from motedge.runtime.engine_files.gate import LoadHost, check_engine
from motedge.runtime.engine_files.record import BUILD_FILE, SCHEMA, EngineFile, EngineFiles

__all__ = ["BUILD_FILE", "SCHEMA", "EngineFile", "EngineFiles", "LoadHost", "check_engine"]
