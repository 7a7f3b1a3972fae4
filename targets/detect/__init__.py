"""Which device of the catalogue this machine is, and how sure that is."""

from motedge.targets.detect.clues import Clues, gather
from motedge.targets.detect.decide import AMBIGUOUS, CERTAIN, LIKELY, UNKNOWN, Candidate, Detection, decide, detect

__all__ = ["AMBIGUOUS", "CERTAIN", "LIKELY", "UNKNOWN", "Candidate", "Clues", "Detection", "decide", "detect", "gather"]
