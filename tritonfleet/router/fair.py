"""Turns for clients that ask much at once of what answers few: each has so many answered at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """At most ``most`` at a time of each who asks; further ones wait in the order they came. Who has nothing
    under way is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}  # and how many are in it or wait

    @asynccontextmanager
    async def turn(self, who: Hashable) -> AsyncIterator[None]:
        line, count = self._lines.get(who) or (asyncio.Semaphore(self._most), 0)
        self._lines[who] = line, count + 1
        try:
            async with line:
                yield
        finally:
            line, count = self._lines.pop(who)
            if count > 1:
                self._lines[who] = line, count - 1

    def __len__(self) -> int:
        """How many have something under way."""
        return len(self._lines)
