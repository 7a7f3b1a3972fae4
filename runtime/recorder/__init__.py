"""What a policy was asked and what it answered, as a ring on disk: bounded, safe against crashes, replayable."""

from motedge.runtime.recorder.recorded_policy import RecordedPolicy
from motedge.runtime.recorder.recorder import RecorderOptions, TickRecorder

__all__ = ["RecordedPolicy", "RecorderOptions", "TickRecorder"]
