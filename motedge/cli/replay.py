"""`motedge replay DIR BUNDLE`: recorded ticks run again, their actions compared bit for bit; `--list` shows them."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from motedge.cli.gpu_arguments import add_gpu_arguments, gpu_options
from motedge.errors import EXIT_GATE_FAILED, EXIT_OK, UsageError
from motedge.units import count_of, format_ms

if TYPE_CHECKING:
    from motedge.runtime.recorder.replay import Replayed
    from motedge.runtime.recorder.ring_reader import RingReader
    from motedge.runtime.recorder.tick_record import Recorded

SCHEMA = "motedge.replay/v1"


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "replay",
        help="run recorded ticks again and compare the actions bit for bit",
        description="Runs ticks that motedge run --recorder kept, with the same bundle, seeds and settings. On the "
        "same engine and machine every bit of every action must be the same: exit code 1 where one is not.",
    )
    parser.add_argument("recording", metavar="DIR", help="folder of the ring")
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="the bundle that was recorded; its hash is checked")
    parser.add_argument("--list", action="store_true", help="show what is there and run nothing")
    which = parser.add_argument_group("which")
    which.add_argument("--last", type=int, metavar="N", help="the last ones alone")
    which.add_argument("--tick", type=int, metavar="N", help="the ticks of that number alone")
    how = parser.add_argument_group("engine (default: as recorded)")
    how.add_argument("--engine", metavar="NAME", help="another backend, whose bits may differ")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    how.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    how.add_argument("--within", type=float, default=0.0, metavar="X", help="greatest difference that passes (0)")
    add_gpu_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Lists or replays; returns an exit code."""
    from motedge.runtime.recorder.ring_reader import RingReader

    if args.within < 0 or (args.last is not None and args.last < 1):
        raise UsageError("--within and --last are wrong", expected="0 or more, and 1 or more")
    reader = RingReader(args.recording)
    if args.list:
        return _list(args, reader)
    if args.bundle is None:
        raise UsageError("a replay needs the bundle", fix="motedge replay DIR BUNDLE, or --list")
    return _replay(args, reader)


def _list(args: argparse.Namespace, reader: RingReader) -> int:
    entries = [(session, tick) for session, tick in _chosen(args, reader)]
    if args.json:
        ticks = [{**tick.document, "session": _session(session)} for session, tick in entries]
        print(json.dumps({"schema": SCHEMA, "ticks": ticks, **_state(reader)}, indent=2, ensure_ascii=False))
        return EXIT_OK
    for session, tick in entries:
        print(_tick_line(session, tick))
    print(f"{count_of(len(entries), 'tick')}; {_state_words(reader)}")
    return EXIT_OK


def _tick_line(session: Optional[Recorded], tick: Recorded) -> str:
    document, reply = tick.document, tick.document["reply"]
    deadline = reply.get("details", {}).get("deadline")
    point = f", {deadline['operating_point']}" if deadline else ""
    total = reply["timings_ms"].get("total_ms")
    return (
        f"{document['number']:>6}  {document['time']}  {reply['kind']:<6}{format_ms(total or 0.0):>10}  "
        f"seed {document['seed']}{point}  {_session(session).get('bundle', 'session lost')}  "
        f"{document['observation']['instruction']!r}"
    )


@dataclass
class _Replay:
    """What came of it all."""

    results: list[Replayed] = field(default_factory=list)
    # Why bits may differ, by session
    differences: dict[str, list[str]] = field(default_factory=dict)
    # Ticks of other bundles
    foreign: int = 0

    def passed(self, within: float) -> bool:
        """Whether every tick that could be run again gave the same."""
        return all(
            result.outcome != "different" or (result.largest is not None and result.largest <= within)
            for result in self.results
        )


def _replay(args: argparse.Namespace, reader: RingReader) -> int:
    from motedge.bundle import Bundle
    from motedge.files import sha256_file
    from motedge.runtime.recorder.replay import replay_tick

    # Fails for what is no bundle, before anything is read
    manifest = Bundle.open(args.bundle).root / "manifest.json"
    ours, found = sha256_file(manifest), _Replay()
    theirs: set[str] = set()
    with contextlib.ExitStack() as opened:
        policies: dict[Any, Any] = {}
        for session, tick in _chosen(args, reader):
            facts = _session(session)
            if facts.get("manifest_sha256") != ours:
                found.foreign += 1
                theirs.add(str(facts.get("bundle", "unknown")))
                continue
            policy = _policy(args, facts, policies, opened, found)
            found.results.append(replay_tick(policy, tick))
    if not found.results:
        raise UsageError(
            "the recording has no tick of this bundle",
            expected=f"manifest {ours[:16]}",
            got=f"{count_of(found.foreign, 'tick')} of {', '.join(sorted(theirs))}" if found.foreign else "no tick",
            fix="give the very bundle that was recorded: a rebuilt one has other bits",
        )
    _show(args, found, reader)
    return EXIT_OK if found.passed(args.within) else EXIT_GATE_FAILED


def _policy(
    args: argparse.Namespace,
    facts: Mapping[str, Any],
    policies: dict[Any, Any],
    opened: contextlib.ExitStack,
    found: _Replay,
) -> Any:
    """The policy of a session, opened once for all that are alike."""
    from motedge.cli.machine_words import machine_words
    from motedge.runtime.policy import load_policy
    from motedge.runtime.recorder.session import differences, session_of

    recorded_variants = set(facts["variants"].values())
    variant = recorded_variants.pop() if len(recorded_variants) == 1 and not facts.get("recipe") else None
    engine = args.engine or facts["engine"]
    threads = args.threads if args.threads is not None else facts.get("threads")
    # Another backend may not run the variant that was recorded
    chosen: dict[str, Any] = {"variant": variant if engine == facts["engine"] else None, "recipe": facts.get("recipe")}
    key = (engine, threads, *chosen.values())
    session = str(facts.get("session"))
    if session not in found.differences:
        now = session_of(args.bundle, engine=engine, threads=threads, machine=machine_words(engine, args.gpu), **chosen)
        found.differences[session] = differences(facts, now)
    if key not in policies:
        policy = load_policy(
            args.bundle, engine=engine, threads=threads, check=args.check, gpu=gpu_options(args), **chosen
        )
        policies[key] = opened.enter_context(policy)
    return policies[key]


def _chosen(args: argparse.Namespace, reader: RingReader) -> Iterator[tuple[Optional[Recorded], Recorded]]:
    from motedge.runtime.recorder.replay import recorded_ticks

    skipped = 0
    if args.last is not None:
        count = sum(_wanted(args, tick) for _, tick in recorded_ticks(reader))
        skipped = max(0, count - args.last)
    for session, tick in recorded_ticks(reader):
        if not _wanted(args, tick):
            continue
        if skipped:
            skipped -= 1
            continue
        yield session, tick


def _wanted(args: argparse.Namespace, tick: Recorded) -> bool:
    return args.tick is None or tick.document.get("number") == args.tick


def _show(args: argparse.Namespace, found: _Replay, reader: RingReader) -> None:
    if args.json:
        document = {
            "schema": SCHEMA,
            "passed": found.passed(args.within),
            "ticks": [result.to_dict() for result in found.results],
            "differences": found.differences,
            "of_other_bundles": found.foreign,
            **_state(reader),
        }
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for result in found.results:
        why = f": {result.why}" if result.why else ""
        if result.outcome == "different" and result.largest is not None:
            why = f", by {result.largest:.3g} at most"
        times = ""
        if result.recorded_ms is not None and result.replayed_ms is not None:
            times = f"  {format_ms(result.recorded_ms)} then, {format_ms(result.replayed_ms)} now"
        print(f"{result.number:>6}  {result.outcome}{why}{times}")
    for words in dict.fromkeys(words for entries in found.differences.values() for words in entries):
        print(f"differs     {words}; bits may follow")
    counts = {name: sum(r.outcome == name for r in found.results) for name in ("same", "different", "skipped")}
    print(f"{', '.join(f'{count} {name}' for name, count in counts.items())}; {_state_words(reader)}")
    if found.foreign:
        print(f"left out: {count_of(found.foreign, 'tick')} of other bundles")


def _session(session: Optional[Recorded]) -> Mapping[str, Any]:
    return {} if session is None else session.document


def _state(reader: RingReader) -> dict[str, Any]:
    damage = [{"segment": d.segment, "offset": d.offset, "kind": d.kind, "why": d.why} for d in reader.damage]
    return {"lost": reader.lost, "damage": damage}


def _state_words(reader: RingReader) -> str:
    words = [f"{d.segment} {d.kind} at byte {d.offset}: {d.why}" for d in reader.damage]
    lost = [f"{reader.lost} records lost"] if reader.lost else []
    return "; ".join([*lost, *words]) or "the recording is whole"
