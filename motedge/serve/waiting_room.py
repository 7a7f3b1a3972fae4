"""Requests that wait for their turn: of each client the newest, of all clients the one that has waited longest."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Optional, Protocol, TypeVar

from motedge.errors import MotedgeError


class RoomFullError(MotedgeError):
    """As many clients wait as are allowed."""


class Waiting(Protocol):
    """What waits."""

    @property
    def client(self) -> int:
        """Whose it is."""
        ...


_Waiting = TypeVar("_Waiting", bound=Waiting)


class WaitingRoom(Generic[_Waiting]):
    """Not for several threads at once; whoever owns it holds a lock."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: clients that may wait."""
        self._capacity = capacity
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: _Waiting) -> Optional[_Waiting]:
        """Lets a request wait. A newer one of the same client takes the older one's place, which is returned.

        Raises:
            RoomFullError: no more may wait.
        """
        older = self._waiting.get(request.client)
        if older is None and len(self._waiting) >= self._capacity:
            raise RoomFullError(
                "too many clients ask at once",
                expected=f"at most {self._capacity} that wait",
                fix="ask again later, or start the server with a larger --max-waiting",
            )
        # In its place: who asks often does not wait longer for it
        self._waiting[request.client] = request
        return older

    def take(self) -> Optional[_Waiting]:
        """The next one, which waits no longer."""
        return self._waiting.popitem(last=False)[1] if self._waiting else None

    def forget(self, client: int) -> Optional[_Waiting]:
        """What a client that left was waiting for."""
        return self._waiting.pop(client, None)

    def empty(self) -> list[_Waiting]:
        """Everyone, in order; nobody waits afterwards."""
        everyone = list(self._waiting.values())
        self._waiting.clear()
        return everyone
