"""The film of a drive in the closed-loop report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")
pytest.importorskip("PIL", reason="films need motedge[images]")

import examples_package  # noqa: F401

from examples.train_small.closed_loop.film import film_drive
from examples.train_small.closed_loop.page import render_page
from examples.train_small.drive.drive import Conditions
from examples.train_small.drive.drivers import ExpertDriver
from examples.train_small.road.instructions import CANONICAL
from motedge.errors import UsageError

SEED = 200_004


def test_a_film_shows_the_plan(tmp_path: Path) -> None:
    from PIL import Image

    film_drive(ExpertDriver(), SEED, CANONICAL["right"], tmp_path / "film.webp", Conditions(seconds=1))
    with Image.open(io.BytesIO((tmp_path / "film.webp").read_bytes())) as film:
        assert film.n_frames == 10 and film.size == (480, 556)
        film.seek(9)
        last = np.asarray(film.convert("RGB")).astype(int)
    # Ahead of the car the road is grey; the plan over it is not
    ahead = last[150:330, 210:300]
    assert (np.ptp(ahead, axis=-1) > 40).mean() > 0.1
    assert list(tmp_path.iterdir()) == [tmp_path / "film.webp"]


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [("film.avi", Conditions(seconds=1), "no films"), ("film.webp", Conditions(latency_s=0.4), "late chunks")],
)
def test_films_that_are_refused(tmp_path: Path, name: str, how: Conditions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        film_drive(ExpertDriver(), SEED, CANONICAL["left"], tmp_path / name, how)
    assert not list(tmp_path.iterdir())


def test_the_page_carries_its_film() -> None:
    conditions = {
        **{"cpu": "made up", "threads": 1, "usable_cores": 2, "commit": None, "uncommitted_changes": None},
        **{"load_average": [], "load_average_after": [], "versions": {}, "simulator": {}, "date": ""},
    }
    result = {
        **{"conditions": conditions, "complete": False, "roads": {"first_seed": 1, "count": 1}, "bundles": {}},
        **{"rows": [], "pairs": [], "correlations": []},
    }
    assert 'src="data:image/webp;base64,Zm9v"' in render_page(result, b"foo")
    assert "<img" not in render_page(result)
