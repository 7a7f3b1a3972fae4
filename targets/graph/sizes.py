"""Numbers for a contract's letters: at the optimum for time, at the largest for memory, or as the user asks."""

from __future__ import annotations

from typing import Optional

from motedge.bundle import Contract
from motedge.errors import UsageError
from motedge.runtime.reasoner.und_engine import GRAPH as UND
from motedge.runtime.reasoner.und_engine import PIECE

OPT, MAX = "opt", "max"


def largest_asked(contract: Contract, *, host: bool = False) -> dict[str, int]:
    """What the runtime asks of a graph at most, by letter, where that is less than the profile allows.

    The reasoner reads a prompt in pieces. Unless told otherwise it holds the profile's optimum of K and V on a GPU; on
    the host it grows with the text, to all that the profile allows.
    """
    if contract.graph == UND:
        _, optimum, most = contract.profile["P"]
        return {"S": min(PIECE, contract.profile["S"][2]), "P": most if host else optimum}
    return {}


def sizes_at(
    contract: Contract,
    which: str,
    *,
    frames: Optional[int] = None,
    und_len: Optional[int] = None,
    host: bool = False,
) -> dict[str, int]:
    """Every letter's number.

    Args:
        contract: of the graph.
        which: "opt" or "max", of the profile; "max" no more than the runtime asks for.
        frames: T, where the graph has one.
        und_len: length of the prompt: S of a prefill, U of a generator step.
        host: whether the graph runs on the host, where the runtime may ask for more; see `largest_asked`.

    Raises:
        ContractError: what was asked for lies outside the profile.
    """
    if which not in (OPT, MAX):
        raise UsageError(f"unknown point of a profile {which!r}", expected=f"{OPT} or {MAX}")
    index = 1 if which == OPT else 2
    sizes = {**contract.sizes, **{letter: span[index] for letter, span in contract.profile.items()}}
    if which == MAX:
        sizes.update(largest_asked(contract, host=host))
    asked = {"T": frames, "S": und_len, "U": und_len}
    asked = {letter: value for letter, value in asked.items() if value is not None and letter in contract.profile}
    if frames is not None and {"T", "A", "N"} <= set(contract.profile):
        _, opt_frames, _ = contract.profile["T"]
        per_frame = (contract.profile["N"][1] - contract.profile["A"][1]) // opt_frames
        asked["N"] = frames * per_frame + sizes["A"]
    made = {**sizes, **{letter: int(value) for letter, value in asked.items() if value is not None}}
    contract.check_dims(made)
    return made
