"""In-flight counters that leak or go negative (llm-d-router #1739): whatever happens, they end at zero."""

import asyncio
import random
from contextlib import suppress

import h2.exceptions
import pytest
from router_parts import RawClient, Request, Router, ScriptedReplica, raw_client, router_of, until

from tritonfleet.http2.frames import ErrorCode

INFER = "/inference.GRPCInferenceService/ModelInfer"


class Whims:
    """Calls that are answered, refused, reset, cancelled or lost with their replica, as a seed draws it."""

    def __init__(self, router: Router, client: RawClient, held: list[Request], seed: int) -> None:
        self.router, self.client, self.held = router, client, held
        self.draw = random.Random(seed)
        self.open: list[int] = []

    async def one(self) -> None:
        what = self.draw.choice(["ask", "ask", "ask", "answer", "fail", "reset", "cancel", "lose"])
        if what == "ask":
            self.open.append(self.client.request(b"x" * self.draw.randrange(2000), path=INFER))
        elif what == "cancel" and self.open:
            with suppress(h2.exceptions.ProtocolError):  # it has had its answer
                self.client.h2.reset_stream(
                    self.open.pop(self.draw.randrange(len(self.open))), ErrorCode.CANCEL
                )
                self.client.flush()
        elif what == "lose":
            if self.draw.random() < 0.1:
                for connection in list(self.draw.choice(self.router.scripted).connections):
                    connection.transport.abort()
        elif self.held:
            self.end(self.held.pop(self.draw.randrange(len(self.held))), what)
        await asyncio.sleep(0.001)

    def end(self, request: Request, how: str) -> None:
        if request.connection.transport.is_closing():
            return
        with suppress(h2.exceptions.ProtocolError):  # it was cancelled
            if how == "reset":
                request.reset(ErrorCode.INTERNAL_ERROR)
            else:
                request.answer(b"", trailers=[("grpc-status", "13" if how == "fail" else "0")])

    def negative(self) -> bool:
        found = self.router.dispatcher
        everyone = (*found.replicas.values(), *found.retired.values())
        return any(
            replica.in_flight < 0 or any(stats.in_flight < 0 for stats in replica.stats.values())
            for replica in everyone
        )


@pytest.mark.parametrize("slots", [{}, {"model": 2}])
@pytest.mark.parametrize("seed", range(4))
async def test_in_flight_counters_that_leak_or_go_negative(seed: int, slots: dict[str, int]) -> None:
    held: list[Request] = []
    replicas = [ScriptedReplica(held.append) for _ in range(3)]
    async with router_of(*replicas, policy="least_work", slots=slots) as router:
        async with raw_client(router.port) as client:
            whims = Whims(router, client, held, seed)
            for _ in range(300):
                await whims.one()
                assert not whims.negative()
            await until(lambda: any(r.connections for r in router.dispatcher.replicas.values()))
            for _ in range(5):
                client.request(b"", path=INFER)
            await until(lambda: router.in_flight() > 0)
        # The client is gone in the middle of it all; `router_of` waits until nothing is in flight.
        await until(lambda: router.dispatcher.waiting_count == 0)
        assert not whims.negative()
