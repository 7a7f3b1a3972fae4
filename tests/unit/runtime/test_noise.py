from __future__ import annotations

import threading

import numpy as np

from motedge.runtime.noise import NoiseAhead, standard_normal


def test_the_legacy_stream_rounded_to_fp32() -> None:
    expected = np.random.RandomState(7).standard_normal((2, 3)).astype(np.float32)
    noise = standard_normal(7, (2, 3))
    assert noise.dtype == np.float32
    assert np.array_equal(noise, expected)


def test_known_values() -> None:
    """MT19937 with the polar method: fixed by numpy for ever, so the same on every machine."""
    expected = [1.764052345967664, 0.4001572083672233, 0.9787379841057392, 2.240893199201458]
    np.testing.assert_array_equal(standard_normal(0, (4,)), np.float32(expected))


def test_action_noise_is_the_head_of_the_vision_noise() -> None:
    vision, action = standard_normal(42, (4, 3, 5, 7)), standard_normal(42, (33, 9))
    assert np.array_equal(vision.ravel()[: action.size], action.ravel())


def test_a_shorter_draw_is_the_head_of_a_longer_one() -> None:
    for count in (1, 2, 3, 100):
        assert np.array_equal(standard_normal(5, (count,)), standard_normal(5, (101,))[:count])


def test_drawn_ahead_or_not_the_numbers_are_the_same() -> None:
    with NoiseAhead(lambda seed: seed + 1) as ahead:
        taken = [ahead.take(seed, 50) for seed in (3, 4, 5, 90, 91)]
    for (noise, _), seed in zip(taken, (3, 4, 5, 90, 91)):
        assert np.array_equal(noise, standard_normal(seed, (50,)))
    assert [hit for _, hit in taken] == [False, True, True, False, True]


def test_another_count_is_drawn_anew() -> None:
    with NoiseAhead() as ahead:
        ahead.prepare(1, 10)
        longer, hit = ahead.take(1, 20)
        assert not hit
        assert np.array_equal(longer, standard_normal(1, (20,)))
        ahead.prepare(1, 20)
        shorter, hit = ahead.take(1, 10)
        assert hit
        assert np.array_equal(shorter, longer[:10])


def test_at_most_one_is_kept() -> None:
    with NoiseAhead() as ahead:
        ahead.prepare(1, 10)
        ahead.prepare(2, 10)
        assert not ahead.take(1, 10)[1]


def test_an_unknown_next_seed_draws_nothing_ahead() -> None:
    with NoiseAhead(lambda seed: None) as ahead:
        assert [ahead.take(1, 5)[1], ahead.take(1, 5)[1]] == [False, False]


def test_close_ends_the_thread_and_the_object_lives_on() -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("motedge-noise")]

    ahead = NoiseAhead(lambda seed: seed + 1)
    ahead.take(1, 1000)
    assert len(threads()) == 1
    ahead.close()
    ahead.close()
    assert threads() == []
    assert ahead.take(2, 10)[1] is False
    ahead.close()
    assert threads() == []
