"""The picture that the driver sees: from above, the car heading up. No indicators, no figures, no trace of the speed.

gymnasium's own picture is 1000 x 800 pixels squeezed to 96 x 96, with a bar of indicators over the lower eighth. This
one shows the same polygons in the same colours at one scale in both directions, drawn twice as fine as it is given out,
and marks the middle of the road by dashes, which gymnasium's roads have not: there are two sides to keep to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pygame
from gymnasium.envs.box2d.car_racing import GRASS_DIM, PLAYFIELD
from numpy.typing import NDArray

SIDE = 96
METRES_A_PIXEL = 0.5
# Where the car is, in pixels from the left and from the top
CAR_AT = (48.0, 72.0)
_FINER = 2
_SEEN_M = 75.0
_MARK, _MARK_HALF_M = (230, 230, 230), 0.3
Image = NDArray[np.uint8]


class Camera:
    """Draws one road. `side` other than 96 draws the same sight with more pixels, for films."""

    def __init__(self, env: Any, side: int = SIDE) -> None:
        """Takes a CarRacing that was reset."""
        self._side, self._scale = side, side * _FINER / (SIDE * METRES_A_PIXEL)
        self._surface = pygame.Surface((side * _FINER, side * _FINER))
        self._centre = np.array(CAR_AT) * side / SIDE * _FINER
        self._outside = tuple(int(c) for c in env.bg_color * 0.5)
        self._ground = tuple(int(c) for c in env.bg_color)
        grass = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
        quads = np.array([corners for corners, _ in env.road_poly], float)
        marks = _marks(env.track)
        self._polygons = np.concatenate([GRASS_DIM * np.array(grass), quads, marks])
        road = tuple(int(c) for c in env.road_color)
        # Tiles are told apart by a shade that goes when a wheel has touched them: here they are all one
        tiles = [colour if isinstance(colour, tuple) else road for _, colour in env.road_poly]
        green = tuple(int(c) for c in env.grass_color)
        self._colours = [green] * len(grass) + tiles + [_MARK] * len(marks)
        self._middles = self._polygons.mean(1)

    def picture(self, car: Any) -> Image:
        """uint8 [side, side, 3] as seen now."""
        place, yaw = np.array(car.hull.position), float(car.hull.angle)
        self._surface.fill(self._outside)
        field = PLAYFIELD * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
        self._draw(field[None], [self._ground], place, yaw)
        near = np.flatnonzero(((self._middles - place) ** 2).sum(-1) < _SEEN_M**2)
        self._draw(self._polygons[near], [self._colours[i] for i in near], place, yaw)
        for part in car.drawlist:
            colour = tuple(int(255 * c) for c in part.color)
            for fixture in part.fixtures:
                corners = np.array([part.transform * v for v in fixture.shape.vertices])
                self._draw(corners[None], [colour], place, yaw)
        fine = pygame.surfarray.array3d(self._surface).transpose(1, 0, 2)
        coarse = fine.reshape(self._side, _FINER, self._side, _FINER, 3).astype(np.uint16).sum((1, 3))
        return ((coarse + _FINER**2 // 2) // _FINER**2).astype(np.uint8)

    def _draw(self, polygons: NDArray[np.float64], colours: list[Any], place: Any, yaw: float) -> None:
        sine, cosine = np.sin(yaw), np.cos(yaw)
        away = polygons - place
        right = away[..., 0] * cosine + away[..., 1] * sine
        ahead = -away[..., 0] * sine + away[..., 1] * cosine
        pixels = np.stack([self._centre[0] + right * self._scale, self._centre[1] - ahead * self._scale], -1)
        for corners, colour in zip(np.rint(pixels).astype(int).tolist(), colours):
            pygame.draw.polygon(self._surface, colour, corners)


def _marks(track: Any) -> NDArray[np.float64]:
    """Dashes [n, 4, 2] along every other tile of gymnasium's track."""
    tiles = np.asarray(track, np.float64)
    start, end = tiles[:-1:2], tiles[1::2][: len(tiles[:-1:2])]
    beside = [_MARK_HALF_M * np.stack([np.cos(part[:, 1]), np.sin(part[:, 1])], -1) for part in (start, end)]
    corners = start[:, 2:] - beside[0], start[:, 2:] + beside[0], end[:, 2:] + beside[1], end[:, 2:] - beside[1]
    return np.stack(corners, 1)
