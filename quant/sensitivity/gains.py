"""How much an error of one forward's velocity counts: what the solver and guidance make of it in the result.

The solver is linear in the velocities, so that its answer to a velocity of 1 at one step and 0 at the others is that
step's gain. Gains differ by far: with the DROID policy's 4 steps the second is under 1 % of the last. What an error
does to later forwards is left out here; measurements on held-out requests include it.
"""

from __future__ import annotations

import numpy as np

from motedge.quant.replay import BRANCHES
from motedge.runtime.request import SamplerSettings
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients


def forward_gains(settings: SamplerSettings) -> dict[tuple[int, str], float]:
    """By (step, branch) of every forward of a loop: change of the result for a velocity that is off by 1, squared."""
    schedule = FlowSchedule(settings.steps, settings.shift)
    coefficients, plan = UniPCCoefficients.from_schedule(schedule), settings.guidance_plan()
    gains = {}
    for step in range(schedule.steps):
        own = _answer(coefficients, step, schedule.steps) ** 2
        if plan.active(int(coefficients.timesteps[step])):
            gains[step, BRANCHES[0]] = own * plan.scale**2
            gains[step, BRANCHES[1]] = own * (1 - plan.scale) ** 2
        else:
            gains[step, BRANCHES[0]] = own
    return gains


def _answer(coefficients: UniPCCoefficients, step: int, steps: int) -> float:
    solver, state = UniPC(coefficients, 1), np.zeros(1, np.float32)
    solver.reset()
    for number in range(steps):
        solver.step(number, state, np.full(1, number == step, np.float32))
    return float(state[0])
