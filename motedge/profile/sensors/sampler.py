"""Reads sensors in a thread of its own, and keeps out of the way while something is timed."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from motedge.profile.sensors.sensor import Channel, Sensor, SensorAbsentError

LOG = logging.getLogger(__name__)
# A reading that takes longer is not waited for, nor is any after it; opening may take until programs print a line
_PATIENCE_S, _OPENING_S = 2.0, 20.0


@dataclass
class SensorLog:
    """What was read."""

    # Seconds of `time.perf_counter`, and the values
    samples: list[tuple[float, dict[Channel, float]]] = field(default_factory=list)
    # Names of the sensors that were read, with what does not change about them
    present: dict[str, dict[str, str]] = field(default_factory=dict)
    # Name -> why there are no values, or none from some moment on
    absent: dict[str, str] = field(default_factory=dict)
    # Time of one reading of all sensors, ms, each
    reading_ms: list[float] = field(default_factory=list)

    def channels(self) -> list[Channel]:
        """All that were ever read, in order of appearance."""
        return list(dict.fromkeys(channel for _, values in self.samples for channel in values))

    def series(self, channel: Channel) -> list[tuple[float, float]]:
        """(Time, value) of one channel."""
        return [(at_s, values[channel]) for at_s, values in self.samples if channel in values]


class Sampler:
    """Opens what can be opened; a context manager, within which readings are taken every interval.

    A thread does all reading, opening and closing. Within `quiet` it reads nothing.
    """

    patience_s, opening_s = _PATIENCE_S, _OPENING_S

    def __init__(self, sensors: Sequence[Sensor], interval_ms: float) -> None:
        self._sensors, self._interval_s = list(sensors), interval_ms / 1e3
        self.log = SensorLog()
        # Held by whoever reads, and by whoever must not be disturbed
        self._turn = threading.Lock()
        self._stop, self._ready, self._wanted = threading.Event(), threading.Event(), threading.Event()
        self._read = threading.Condition()
        self._last_s = 0.0
        # Which sensor is being opened or read, and whether it was given up
        self._at, self._stuck = "", False
        self._thread = threading.Thread(target=self._run, name="motedge-sensors", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        if not self._ready.wait(self.opening_s):
            self._give_up()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._wanted.set()
        self._thread.join(0.0 if self._stuck else self.patience_s)

    @property
    def parts(self) -> dict[str, str]:
        """Sensor -> the part whose power it reads, of all that are there."""
        return {sensor.name: sensor.part for sensor in self._sensors}

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """No reading within the block. A reading that is due is taken before it, and not waited for beyond reason."""
        if time.perf_counter() - self._last_s >= self._interval_s:
            self.sample()
        # One that hangs may wake up within the block; its reading is then the least of its faults
        held = not self._stuck and self._turn.acquire(timeout=self.patience_s)
        try:
            yield
        finally:
            if held:
                self._turn.release()

    def sample(self) -> None:
        """Takes a reading now and waits for it."""
        if not self._sensors or self._stuck:
            return
        with self._read:
            before = len(self.log.samples)
            self._wanted.set()
            done = self._read.wait_for(lambda: len(self.log.samples) > before or not self._sensors, self.patience_s)
        if not done:
            self._give_up()

    def _give_up(self) -> None:
        self._stuck = True
        self.log.absent[self._at or "sensors"] = "gone: it does not answer; none is read any more"
        LOG.warning("sensor %s does not answer; none is read any more", self._at or "thread")

    def _run(self) -> None:
        self._open()
        self._ready.set()
        while not self._stop.is_set():
            self._wanted.wait(self._interval_s)
            self._wanted.clear()
            if not self._stop.is_set():
                with self._turn:
                    self._take()
        for sensor in self._sensors:
            _close(sensor)

    def _open(self) -> None:
        found = []
        for sensor in self._sensors:
            self._at = sensor.name
            try:
                sensor.open()
                self.log.present[sensor.name] = dict(sensor.facts())
                found.append(sensor)
            except SensorAbsentError as error:
                self.log.absent[sensor.name] = error.what
            except Exception as error:  # noqa: BLE001 -- a sensor must not end what it looks at
                self.log.absent[sensor.name] = f"{type(error).__name__}: {error}"
        self._sensors = found

    def _take(self) -> None:
        start_s = time.perf_counter()
        values: dict[Channel, float] = {}
        for sensor in list(self._sensors):
            self._at = sensor.name
            try:
                values.update(sensor.read())
            except Exception as error:  # noqa: BLE001 -- a sensor must not end what it looks at
                why = error.what if isinstance(error, SensorAbsentError) else f"{type(error).__name__}: {error}"
                self.log.absent[sensor.name] = f"gone: {why}"
                LOG.warning("sensor %s is not read any more: %s", sensor.name, why)
                self._sensors.remove(sensor)
                _close(sensor)
        end_s = time.perf_counter()
        with self._read:
            # Readings are of the middle of the time that they took
            self.log.samples.append(((start_s + end_s) / 2, values))
            self.log.reading_ms.append(1e3 * (end_s - start_s))
            self._last_s = end_s
            self._read.notify_all()


def _close(sensor: Sensor) -> None:
    try:
        sensor.close()
    except Exception as error:  # noqa: BLE001 -- the measurement is over
        LOG.warning("sensor %s: %s", sensor.name, error)
