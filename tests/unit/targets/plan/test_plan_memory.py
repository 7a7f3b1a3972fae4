from __future__ import annotations

from typing import Any

import pytest
from plan_scene import GB, device, graph_plan, policy_bundle

from motedge.bundle import Contract, TensorSpec
from motedge.targets.plan.assumptions import HOST_PROCESS, context_bytes
from motedge.targets.plan.memory import plan_memory
from motedge.targets.plan.model import DEVICE, HOST

ORIN, ADA = "jetson-orin-nano-8gb", "rtx-4090"
GRAPHS = (graph_plan("gen_step", 3 * GB), graph_plan("und_prefill", 2 * GB, 50_000_000))


def plan(target: str = ORIN, available_gb: Any = 7.1, branches: int = 2, **changed: bool) -> Any:
    return plan_memory(policy_bundle(), device(target, available_gb), GRAPHS, branches=branches, **changed)


def item(memory: Any, words: str) -> int:
    return sum(entry.bytes for entry in memory.items if words in entry.name)


def test_k_and_v_of_every_branch_at_the_longest_prompt() -> None:
    # L 2 K U D in bf16
    one = 2 * 2 * 4 * 64 * 8 * 2
    assert item(plan(), "K and V") == 2 * one and item(plan(branches=1), "K and V") == one


def test_engines_share_one_memory_for_activations() -> None:
    assert item(plan(), "activations") == 100_000_000
    # onnxruntime: an arena a session
    assert item(plan("cpu", 16.0), "activations") == 150_000_000


def test_loading_needs_the_file_beside_the_engine() -> None:
    """Largest first: 3 + 3 GB, then 3 + 2 + 2."""
    orin = device(ORIN, 7.1)
    around = int(context_bytes(orin).value or 0) + int(HOST_PROCESS.value or 0)
    memory = plan()
    assert memory.loading_bytes == 7 * GB + around == memory.needed_bytes
    assert memory.needed_bytes > sum(entry.bytes for entry in memory.items)


def test_shared_memory_counts_the_host_and_a_card_does_not() -> None:
    memory, card = plan(available_gb=100.0), plan(ADA, 24.0)
    assert memory.total(DEVICE) + memory.total(HOST) == sum(entry.bytes for entry in memory.items)
    assert card.needed_bytes == card.total(DEVICE) and card.loading_bytes == 0


@pytest.mark.parametrize(("available", "fits"), [(7.0, False), (9.0, True), (None, None)])
def test_the_answer(available: Any, fits: Any) -> None:
    assert plan(available_gb=available).fits is fits


def test_dropping_the_prefill_and_streaming_weights() -> None:
    assert item(plan(keep_prefill=False), "und_prefill") == 0
    bundle = policy_bundle()
    bundle.contract("gen_step").sizes["L"] = 30
    card = device(ADA, 24.0)
    plain, streamed = (
        plan_memory(bundle, card, GRAPHS, branches=2, stream_weights=streamed) for streamed in (False, True)
    )
    # Two of 30 layers stay
    assert plain.total(DEVICE) - streamed.total(DEVICE) == 3 * GB - 2 * 3 * GB // 30
    assert item(streamed, "gen_step's weights") == 3 * GB and streamed.total(HOST) > 3 * GB


def test_a_mapped_table_counts_its_touched_pages() -> None:
    # Two prompts of 64 rows, a page each; never more than the table
    assert item(plan(), "embedding") == 2 * 64 * 4096


def test_on_the_host_the_reasoners_k_and_v_grow_to_all_that_the_profile_allows() -> None:
    specs = tuple(
        TensorSpec(name, ("L", 2, "K", letter, "D"), "graph", "x") for name, letter in (("past_kv", "P"), ("kv", "S"))
    )
    profile = {"S": (1, 1, 4096), "P": (2, 2048, 16384)}
    und = Contract("und", specs[:1], specs[1:], {"L": 2, "K": 4, "D": 8}, profile)
    bundle = policy_bundle()
    bundle.manifest.graphs["und"] = und
    graphs = (*GRAPHS, graph_plan("und", 2 * GB))
    # L 2 K (P + S) D in bf16: 16,384 slots on a CPU, 2,048 on a GPU, and a piece of 512
    row = 2 * 2 * 4 * 8 * 2
    for target, slots in (("cpu", 16384), (ADA, 2048)):
        without, beside = (
            item(plan_memory(made, device(target, 64.0), graphs, branches=2), "buffers, host")
            for made in (policy_bundle(), bundle)
        )
        assert beside - without == row * (slots + 512)
