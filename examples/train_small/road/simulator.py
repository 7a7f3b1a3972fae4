"""gymnasium's CarRacing as a vehicle: put on a road, driven by curvature and speed, seen from above.

The simulation runs at 50 Hz, as gymnasium's own. Its tracks are made from a seed, so that there are as many roads as
one likes, none of which a driver has seen.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from gymnasium.envs.box2d.car_dynamics import Car
from gymnasium.envs.box2d.car_racing import FPS, CarRacing

from examples.train_small.road.camera import Camera, Image
from examples.train_small.road.track import Array, Track
from motedge.errors import ContractError

RATE_HZ = float(FPS)
# gymnasium's car_dynamics.py: WHEELPOS (+80 and -82) times SIZE (0.02), and the lock of the front wheels
AXLES_M = 3.24
LOCK_RAD = 0.4
# Tuned on a straight and in bends: reaches a speed within a second, without overshoot to speak of
_GAS_A_M_S, _BRAKE_A_M_S = 0.06, 0.08
_GAS_MAX, _BRAKE_MAX = 0.3, 0.8


class Simulator:
    """One car on one road at a time."""

    def __init__(self) -> None:
        """Makes the world; no window is opened."""
        self._env: Any = _Unseen()
        self.track: Track
        self.seed = -1

    def reset(self, seed: int, s: float = 0.0, lateral: float = 0.0, askew: float = 0.0, speed: float = 0.0) -> Array:
        """A new road by its seed, and the car on it.

        Args:
            seed: Of the road; the same one gives the same road.
            s: Metres along the road.
            lateral: Metres to the right of the centre line.
            askew: Rad to the left of the road's direction.
            speed: m/s, straight ahead.

        Returns:
            The pose, as `pose`.
        """
        self._env.reset(seed=seed)
        self.seed, self.track = seed, Track.from_tiles(self._env.track)
        self.camera = Camera(self._env)
        centre, yaw, _ = self.track.at(s)
        place = centre + lateral * np.array([np.cos(yaw), np.sin(yaw)])
        self._place(place, float(yaw) + askew, speed)
        return self.pose()

    @property
    def env(self) -> Any:
        """gymnasium's environment."""
        return self._env

    def pose(self) -> Array:
        """x, y (m) and yaw (rad, 0 along +y, growing to the left), fp64 [3]."""
        hull = self._env.car.hull
        return np.array([hull.position[0], hull.position[1], hull.angle])

    def speed(self) -> float:
        """m/s along the car's own direction."""
        hull = self._env.car.hull
        yaw, moved = hull.angle, hull.linearVelocity
        return float(-np.sin(yaw) * moved[0] + np.cos(yaw) * moved[1])

    def picture(self) -> Image:
        """What the driver sees now, uint8 [96, 96, 3]."""
        return self.camera.picture(self._env.car)

    def drive(self, curvature: float, speed: float, steer_noise: float = 0.0) -> None:
        """One step of 1/50 s.

        Args:
            curvature: 1/m, positive to the left.
            speed: Wanted, m/s.
            steer_noise: Rad added to the front wheels' angle.

        Raises:
            ContractError: not finite.
        """
        if not np.isfinite([curvature, speed, steer_noise]).all():
            raise ContractError(
                "the car can't be driven so", expected="finite numbers", got=[curvature, speed, steer_noise]
            )
        angle = float(np.clip(np.arctan(AXLES_M * curvature) + steer_noise, -LOCK_RAD, LOCK_RAD))
        lacking = speed - self.speed()
        gas = float(np.clip(_GAS_A_M_S * lacking, 0, _GAS_MAX)) if speed > 0.05 else 0.0
        brake = float(np.clip(-_BRAKE_A_M_S * lacking, 0, _BRAKE_MAX))
        if speed <= 0.05 and self.speed() < 1.0:
            # gymnasium locks the wheels from 0.9 on: the car stands
            brake = 1.0
        self._env.step(np.array([-angle, gas, brake]))

    def close(self) -> None:
        """Frees the world."""
        self._env.close()

    def _place(self, place: Array, yaw: float, speed: float) -> None:
        env = self._env
        env.car.destroy()
        env.car = car = Car(env.world, yaw, float(place[0]), float(place[1]))
        moved = (-float(np.sin(yaw)) * speed, float(np.cos(yaw)) * speed)
        # The wheels stand beside the hull as if it had no yaw: turn them about it
        for wheel, anchor in zip(car.wheels, _wheel_anchors(car)):
            wheel.position = tuple(car.hull.GetWorldPoint(anchor))
            wheel.linearVelocity, wheel.omega = moved, speed / wheel.wheel_rad
        car.hull.linearVelocity = moved


class _Unseen(CarRacing):  # type: ignore[misc]
    """CarRacing that draws nothing of its own: its picture at each step costs a hundred times the physics."""

    def _render(self, mode: str) -> Optional[Any]:
        return None


def _wheel_anchors(car: Any) -> list[Any]:
    return [wheel.joint.GetLocalAnchorA() if hasattr(wheel.joint, "GetLocalAnchorA") else None for wheel in car.wheels]
