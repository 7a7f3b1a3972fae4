"""The loop against a plain loop over diffusers' schedulers; what it keeps across ticks; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import ContractError, GateError, UsageError
from motedge.runtime.denoise import DenoiseLoop, SamplerSettings
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.rope import GenLayout, RotaryTable

EDGE = SamplerSettings(steps=4, shift=5.0, guidance=3.0, guidance_interval=(960, 1001))


@pytest.fixture
def parts(numpy_engine, tables, model):
    """Loop, und engine, gen engine."""
    und, gen = numpy_engine("und_prefill"), numpy_engine("gen_step")
    loop = DenoiseLoop(und, gen, tables, model.config)
    yield loop, und, gen
    loop.close()


def _plain_loop(model, tables, inputs, settings) -> tuple[np.ndarray, np.ndarray]:
    """The same request with nothing kept, one diffusers scheduler a modality, torch arithmetic."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    rotary = RotaryTable(tables.inv_freq(), model.config)
    weights = tables.embodiment_weights(inputs.domain_id, inputs.raw_dim)

    def velocity(vision, action, t, tokens):
        cos, sin = rotary.text(tokens.size)
        kv = model.functions["und_prefill"]({"embeddings": tables.embeddings(tokens), "cos": cos, "sin": sin})[0]
        _, frames, rows, columns = vision.shape
        cos, sin = rotary.generator(
            GenLayout(tokens.size, frames, rows, columns, len(action), inputs.fps, inputs.fps, 0)
        )
        return model.functions["gen_step"](
            {
                "vision": vision,
                "action": action,
                "vision_noisy": inputs.vision_noisy,
                "action_noisy": inputs.action_noisy,
                "t": np.float32([t]),
                "cos": cos,
                "sin": sin,
                "und_kv": kv,
                "action_in_weight": weights.in_weight,
                "action_in_bias": weights.in_bias,
                "action_out_weight": weights.out_weight,
                "action_out_bias": weights.out_bias,
            }
        )

    def noise(shape):
        return np.random.RandomState(inputs.seed).standard_normal(shape).astype(np.float32)

    frame, row = inputs.vision_noisy[None, :, None, None], inputs.action_noisy[:, None]
    vision = frame * noise(inputs.vision_clean.shape) + (1 - frame) * inputs.vision_clean
    action = row * noise(inputs.action_clean.shape) + (1 - row) * inputs.action_clean
    action[:, inputs.raw_dim :] = 0
    schedulers = []
    for _ in range(2):
        scheduler = diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=settings.shift
        )
        scheduler.set_timesteps(sigmas=np.linspace(1 - 1 / 1000, 0, settings.steps + 1)[:-1])
        schedulers.append(scheduler)
    for t in schedulers[0].timesteps:
        v = velocity(vision, action, int(t), inputs.cond_tokens)
        lo, hi = settings.guidance_interval or (-1, 1001)
        if settings.guidance != 1 and lo < int(t) < hi:
            u = velocity(vision, action, int(t), inputs.uncond_tokens)
            v = [b + np.float32(settings.guidance) * (a - b) for a, b in zip(v, u)]
        # diffusers' solver wants a batch and a channel axis
        vision, action = (
            s.step(torch.from_numpy(d)[None, None], t, torch.from_numpy(x)[None, None]).prev_sample[0, 0].numpy()
            for s, d, x in zip(schedulers, v, (vision, action))
        )
    return vision, action


@pytest.mark.parametrize(
    "settings",
    [EDGE, SamplerSettings(), SamplerSettings(guidance=1.0), SamplerSettings(steps=12, shift=10.0, guidance=6.0)],
    ids=str,
)
def test_equals_a_plain_loop(parts, model, tables, gen_inputs, settings) -> None:
    inputs = gen_inputs()
    result = parts[0].run(inputs, settings)
    vision, action = _plain_loop(model, tables, inputs, settings)
    np.testing.assert_allclose(result.vision, vision, atol=1e-5, rtol=0)
    np.testing.assert_allclose(result.action, action, atol=1e-5, rtol=0)
    # Not by chance: guidance and the prompt matter here
    assert np.abs(vision[:, 1:]).max() > 0.1


def test_two_ticks_compute_only_what_changed(parts, gen_inputs) -> None:
    loop, und, gen = parts
    first = loop.run(gen_inputs(), EDGE)
    assert (und.counts["runs"], gen.counts["runs"]) == (2, 5)
    assert (first.counters.prefills, first.counters.prompt_hits, first.counters.rope_hits) == (2, 0, 0)
    bound, contexts = gen.counts["bound"], gen.counts["contexts"]
    assert contexts == 2

    image = gen_inputs().vision_clean + 1
    state = gen_inputs().action_clean * 2
    second = loop.run(gen_inputs(vision_clean=image, action_clean=state, seed=6), EDGE)
    assert und.counts["runs"] == 2
    assert gen.counts["runs"] == 10
    assert (gen.counts["bound"], gen.counts["contexts"]) == (bound, contexts)
    assert second.counters.forwards == 5
    assert (second.counters.prefills, second.counters.prompt_hits, second.counters.rope_hits) == (0, 2, 2)
    assert not np.array_equal(first.action, second.action)


def test_a_kept_state_does_not_leak_into_the_next_tick(parts, gen_inputs, numpy_engine, tables, model) -> None:
    loop = parts[0]
    loop.run(gen_inputs(seed=1), EDGE)
    loop.run(gen_inputs(seed=1), SamplerSettings(steps=7))
    again = loop.run(gen_inputs(seed=9), EDGE)
    fresh = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step"), tables, model.config)
    expected = fresh.run(gen_inputs(seed=9), EDGE)
    assert np.array_equal(again.vision, expected.vision)
    assert np.array_equal(again.action, expected.action)


def test_a_changed_prompt_costs_one_prefill(parts, gen_inputs) -> None:
    loop, und, gen = parts
    loop.run(gen_inputs(), EDGE)
    result = loop.run(gen_inputs(cond_tokens=np.arange(8)), EDGE)
    assert und.counts["runs"] == 3
    assert (result.counters.prefills, result.counters.prompt_hits) == (1, 1)
    # The other branch keeps its context
    assert gen.counts["contexts"] == 3
    assert loop.prompts.misses == 3


@pytest.mark.parametrize(
    ("settings", "forwards"), [(EDGE, 5), (SamplerSettings(), 8), (SamplerSettings(guidance=1.0), 4)]
)
def test_forwards(parts, gen_inputs, settings, forwards) -> None:
    result = parts[0].run(gen_inputs(), settings)
    assert parts[2].counts["runs"] == result.counters.forwards == forwards
    assert [s.t for s in result.timings.steps] == [999, 937, 833, 624]


def test_without_guidance_the_second_prompt_is_never_touched(parts, gen_inputs) -> None:
    loop, und, _ = parts
    for settings in (SamplerSettings(guidance=1.0), SamplerSettings(guidance_interval=(0, 1))):
        loop.run(gen_inputs(uncond_tokens=None), settings)
    assert und.counts["runs"] == 1


def test_clean_positions_and_unused_channels_stay_exact(parts, gen_inputs) -> None:
    inputs = gen_inputs()
    result = parts[0].run(inputs, SamplerSettings(steps=20))
    assert np.array_equal(result.vision[:, 0], inputs.vision_clean[:, 0])
    assert np.array_equal(result.action[0], inputs.action_clean[0])
    assert (result.action[:, 3:] == 0).all()
    assert (result.action[1:, :3] != 0).all()


def test_everything_clean_needs_no_special_case(parts, gen_inputs) -> None:
    """Inverse dynamics: all frames are given."""
    inputs = gen_inputs(vision_noisy=np.zeros(3, np.float32))
    assert np.array_equal(parts[0].run(inputs, EDGE).vision, inputs.vision_clean)


def test_results_belong_to_the_caller(parts, gen_inputs) -> None:
    first = parts[0].run(gen_inputs(seed=1), EDGE)
    kept = first.action.copy()
    parts[0].run(gen_inputs(seed=2), EDGE)
    assert np.array_equal(first.action, kept)


def test_inputs_are_not_written(parts, gen_inputs) -> None:
    inputs = gen_inputs()
    for value in vars(inputs).values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    parts[0].run(inputs, EDGE)


def test_noise_drawn_ahead_changes_nothing(numpy_engine, tables, model, gen_inputs) -> None:
    def run(noise) -> list:
        loop = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step"), tables, model.config, noise=noise)
        results = [loop.run(gen_inputs(seed=seed), EDGE) for seed in (3, 4, 5)]
        loop.close()
        return results

    ahead, plain = run(NoiseAhead(lambda seed: seed + 1)), run(None)
    assert [r.counters.noise_ahead for r in ahead] == [False, True, True]
    assert [r.counters.noise_ahead for r in plain] == [False] * 3
    for a, b in zip(ahead, plain):
        assert np.array_equal(a.action, b.action)


def test_timings(parts, gen_inputs) -> None:
    timings = parts[0].run(gen_inputs(), EDGE).timings
    assert [step.uncond_ms is None for step in timings.steps] == [False, True, True, True]
    spent = timings.prefill_ms + timings.rope_ms + timings.noise_ms
    spent += sum(s.cond_ms + (s.uncond_ms or 0) + s.solver_ms for s in timings.steps)
    assert 0 < spent <= timings.total_ms
    assert set(timings.to_dict()) == {"prefill_ms", "rope_ms", "noise_ms", "steps", "total_ms", "graph_ms"}


def test_other_sizes_in_turn(parts, gen_inputs) -> None:
    loop = parts[0]
    small = gen_inputs()
    large = gen_inputs(
        vision_clean=np.zeros((2, 4, 3, 4), np.float32),
        vision_noisy=np.ones(4, np.float32),
        action_clean=np.zeros((9, 4), np.float32),
        action_noisy=np.ones(9, np.float32),
    )
    before = loop.run(small, EDGE)
    assert loop.run(large, EDGE).action.shape == (9, 4)
    assert np.array_equal(loop.run(small, EDGE).action, before.action)


def _broken(function, name: str, run: int, value: float):
    """The function with one value of one output spoilt at one run."""
    runs = iter(range(1000))

    def broken(x):
        outputs = [np.array(o) for o in function(x)]
        if next(runs) == run:
            outputs[0 if name == "vision" else 1].flat[-1] = value
        return outputs

    return broken


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("output", "run", "where"),
    [
        ("vision", 0, "step 0, conditional"),
        ("action", 1, "step 0, unconditional"),
        ("action", 4, "step 3, conditional"),
    ],
)
def test_stops_at_nan(numpy_engine, tables, model, gen_inputs, output, run, where, value) -> None:
    gen = numpy_engine("gen_step", _broken(model.functions["gen_step"], output, run, value))
    loop = DenoiseLoop(numpy_engine("und_prefill"), gen, tables, model.config)
    with pytest.raises(NonFiniteError, match=f"gen_step.*{where}") as caught:
        loop.run(gen_inputs(), EDGE)
    assert isinstance(caught.value, GateError)
    assert gen.counts["runs"] == run + 1
    # The next tick is not harmed
    assert np.isfinite(loop.run(gen_inputs(), EDGE).action).all()


def test_stops_at_nan_in_a_prefill_and_keeps_nothing(numpy_engine, tables, model, gen_inputs) -> None:
    und = numpy_engine("und_prefill", _broken(model.functions["und_prefill"], "vision", 0, float("nan")))
    loop = DenoiseLoop(und, numpy_engine("gen_step"), tables, model.config)
    with pytest.raises(NonFiniteError, match=r"und_prefill.*5 tokens"):
        loop.run(gen_inputs(), EDGE)
    assert len(loop.prompts) == 0
    assert np.isfinite(loop.run(gen_inputs(), EDGE).action).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cond_tokens": np.arange(13)}, ContractError, "another range of U"),
        ({"uncond_tokens": np.arange(1)}, ContractError, "another range of U"),
        ({"cond_tokens": np.array([1, 50], np.int64)}, ContractError, "outside the vocabulary"),
        ({"cond_tokens": np.array([1, -1], np.int64)}, ContractError, "outside the vocabulary"),
        ({"vision_clean": np.zeros((2, 3, 3, 5), np.float32)}, ContractError, "vision_clean does not fit"),
        ({"vision_clean": np.zeros((3, 3, 3, 4), np.float32)}, ContractError, "vision_clean does not fit"),
        ({"action_clean": np.zeros((5, 6), np.float32)}, ContractError, "action_clean does not fit"),
        ({"domain_id": 3}, UsageError, "no such embodiment domain"),
        ({"uncond_tokens": None}, UsageError, "needs an unconditional prompt"),
    ],
)
def test_refuses(parts, gen_inputs, changes, error, message) -> None:
    with pytest.raises(error, match=message):
        parts[0].run(gen_inputs(**changes), EDGE)
    assert parts[2].counts["runs"] == 0


def test_too_many_frames(parts, gen_inputs) -> None:
    inputs = gen_inputs(vision_clean=np.zeros((2, 5, 3, 4), np.float32), vision_noisy=np.ones(5, np.float32))
    with pytest.raises(ContractError, match="another range of T"):
        parts[0].run(inputs, EDGE)
