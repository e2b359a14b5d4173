"""Ends of containers are learned of although a look at them fails in a way that nobody foresaw."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tritonfleet.drivers import docker_watch
from tritonfleet.drivers.docker_engine import NotThereError
from tritonfleet.drivers.docker_watch import REMOVED, ExitWatch


class Engine:
    """Its first answer is none; after that it knows no container."""

    def __init__(self) -> None:
        self.answers: list[Any] = [[{"Id": "0123456789ab"}]]

    async def call(self, what: str, work: Callable[[Any], Any]) -> Any:
        def inspect(_name: str) -> None:
            raise NotThereError(what)

        rows = self.answers.pop() if self.answers else []
        return work(SimpleNamespace(containers=lambda **_: rows, inspect_container=inspect))


async def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_watch, "POLL_S", 0.01)
    engine: Any = Engine()
    watch = ExitWatch(engine, "f")
    listening = SimpleNamespace(opened=asyncio.Event(), ended=asyncio.Event(), close=lambda: asyncio.sleep(0))
    listening.opened.set()
    monkeypatch.setattr(watch, "_listen", lambda: listening)
    status = await asyncio.wait_for(watch.ended("0123456789ab"), 20)
    assert status.detail == REMOVED
    assert engine.answers == []
    await watch.close()
