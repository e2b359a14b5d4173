"""A stream counts as many requests as are open in it: for the balance, the limits, the signals, the drain."""

import gzip
import random
from contextlib import suppress
from typing import Any

import h2.exceptions
import pytest
from router_parts import RawClient, Request, Router, ScriptedReplica, message, raw_client, router_of, until
from tritonclient.grpc import service_pb2

from tritonfleet.core.wire import ReplicaTelemetry
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router.replica import MOST_STRANGERS
from tritonfleet.router.streamed import peek
from tritonfleet.router.telemetry import telemetry

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def asking(model: str = "model", *, asks: bool = False) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=model)
    if asks:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.raw_input_contents.append(bytes(50))
    return message(request.SerializeToString())


def answer(model: str = "model", *, final: bool = True, error: str = "", size: int = 50) -> bytes:
    """As Triton writes it."""
    found = service_pb2.ModelStreamInferResponse(error_message=error)
    found.infer_response.model_name = model
    found.infer_response.parameters["triton_final_response"].bool_param = final
    found.infer_response.raw_output_contents.append(bytes(size))
    return message(found.SerializeToString())


def refusal(text: str = "no such model") -> bytes:
    """What Triton says of a request that it did not execute: no model, no word of the final response."""
    found = service_pb2.ModelStreamInferResponse(error_message=text)
    found.infer_response.SetInParent()
    return message(found.SerializeToString())


class Talk:
    """One stream through a router, both of its ends."""

    def __init__(self, router: Router, client: RawClient) -> None:
        self.router, self.client = router, client
        self.name = str(client.h2.get_next_available_stream_id())
        self.stream = client.request(None, path=STREAM, **{"x-talk": self.name})
        self.asked = 0

    def ask(self, *requests: bytes) -> None:
        self.client.h2.send_data(self.stream, b"".join(requests))
        self.client.flush()
        self.asked += sum(map(len, requests))

    def far_end(self) -> Request | None:
        """Where all that was asked has arrived."""
        everyone = [
            request
            for replica in self.router.scripted
            for connection in replica.connections
            for request in connection.requests.values()
            if request.headers.get("x-talk") == self.name and len(request.body) == self.asked
        ]
        return everyone[0] if everyone else None

    async def begin(self) -> None:
        await until(lambda: self.far_end() is not None)
        far = self.far_end()
        assert far is not None
        self.far = far
        far.connection.h2.send_headers(far.stream, [(":status", "200"), ("content-type", "application/grpc")])
        far.connection.flush()

    async def answer(self, *answers: bytes, pieces: int = 1 << 14) -> None:
        data = b"".join(answers)
        before = len(self.client.body(self.stream))
        for at in range(0, len(data), pieces):
            self.far.connection.h2.send_data(self.far.stream, data[at : at + pieces])
            self.far.connection.flush()
        await until(lambda: len(self.client.body(self.stream)) == before + len(data))

    def seen(self) -> ReplicaTelemetry:
        (found,) = telemetry(self.router.dispatcher, worker=0, pid=1, started_at=0).replicas
        return found


def nothing(_request: Request) -> None:
    """A replica whose answers the test gives."""


async def test_a_stream_counts_what_is_open_in_it_and_nothing_while_it_rests() -> None:
    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        talk = Talk(router, client)
        talk.ask(asking(), asking(), asking())
        await talk.begin()
        assert (talk.seen().in_flight, talk.seen().streams) == (3, 1)
        assert talk.seen().oldest_in_flight_s > 0
        replica = router.dispatcher.replicas["m-0.1"]
        assert replica.work_s == pytest.approx(0.03)  # 10 ms each, while nothing was learned
        await talk.answer(answer(), answer(error="it failed"), pieces=7)
        assert talk.seen().in_flight == 1
        await talk.answer(refusal())
        assert (talk.seen().in_flight, talk.seen().streams, talk.seen().oldest_in_flight_s) == (0, 1, 0.0)
        assert replica.work_s == pytest.approx(0.0)
        talk.ask(asking())
        await until(lambda: talk.seen().in_flight == 1)
        client.h2.end_stream(talk.stream)
        client.flush()
        await talk.answer(answer(size=10_000))
        assert talk.seen().in_flight == 0
        talk.far.connection.h2.send_headers(talk.far.stream, [("grpc-status", "0")], end_stream=True)
        talk.far.connection.flush()
        assert await client.finished(talk.stream) == (0, "")
        (call,) = telemetry(router.dispatcher, worker=0, pid=1, started_at=0).calls
        assert (call.in_flight, call.streamed, call.streams, call.codes) == (0, 4, 1, {"0": 1})
        assert (call.served, call.expected_s) == (2, pytest.approx(0.02))  # the others failed


async def test_decoupled_requests_that_ask_are_in_flight_to_their_last_response() -> None:
    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        talk = Talk(router, client)
        talk.ask(asking(asks=True), asking(asks=True))
        await talk.begin()
        await talk.answer(*[answer(final=False)] * 10)
        assert talk.seen().in_flight == 2
        await talk.answer(answer(size=0), answer(final=False))
        assert talk.seen().in_flight == 1
        await talk.answer(answer(size=0))
        assert talk.seen().in_flight == 0


async def test_of_those_that_do_not_ask_one_counts() -> None:
    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        talk = Talk(router, client)
        talk.ask(asking(), asking(), asking())
        await talk.begin()
        await talk.answer(answer(final=False))
        assert talk.seen().in_flight == 1  # it may have ended, and nobody would be told
        talk.ask(asking())
        await until(lambda: talk.far_end() is not None)
        assert talk.seen().in_flight == 1
        await talk.answer(answer(final=False), answer())
        assert talk.seen().in_flight == 0


@pytest.mark.parametrize("limit", [2, 4])
async def test_requests_in_streams_fill_slots_but_never_all(limit: int) -> None:
    held: list[Request] = []
    async with (
        router_of(ScriptedReplica(held.append), slots={"model": limit}) as router,
        raw_client(router.port) as client,
    ):
        talk = Talk(router, client)
        talk.ask(*[asking()] * 10)
        await talk.begin()
        for _ in range(limit):
            client.request(asking()[5:], path=INFER)
        await until(lambda: len(held) == limit // 2)
        assert router.dispatcher.waiting_count == limit // 2
        await talk.answer(*[answer()] * 10)  # the stream rests: its slots are free
        await until(lambda: len(held) == limit)
        for request in held:
            request.answer(b"")


async def test_who_waits_for_another_of_a_stream_s_models_goes_on_when_the_stream_ends() -> None:
    held: list[Request] = []
    async with (
        router_of(ScriptedReplica(held.append), slots={"model": 2}) as router,
        raw_client(router.port) as client,
    ):
        talk = Talk(router, client)
        talk.ask(asking("other"), asking(), asking())
        await talk.begin()
        for _ in range(2):
            client.request(asking()[5:], path=INFER)
        await until(lambda: len(held) == 1)
        assert router.dispatcher.waiting_count == 1
        client.h2.reset_stream(talk.stream, ErrorCode.CANCEL)
        client.flush()
        await until(lambda: len(held) == 2)
        for request in held:
            request.answer(b"")


async def test_compressed_messages_are_counted_too() -> None:
    def gzipped(data: bytes) -> bytes:
        squeezed = gzip.compress(data[5:])
        return b"\1" + len(squeezed).to_bytes(4, "big") + squeezed

    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        talk = Talk(router, client)
        talk.ask(gzipped(asking("many", asks=True)), gzipped(asking()))
        await talk.begin()
        assert talk.seen().in_flight == 2
        await talk.answer(gzipped(answer("many", final=False)), gzipped(answer()))
        assert talk.seen().in_flight == 1
        await talk.answer(gzipped(answer("many", size=0)))
        assert talk.seen().in_flight == 0


async def test_least_requests_sees_the_requests_of_a_stream() -> None:
    unary: list[Request] = []
    async with (
        router_of(
            ScriptedReplica(unary.append), ScriptedReplica(unary.append), policy="least_requests"
        ) as router,
        raw_client(router.port) as client,
    ):
        talk = Talk(router, client)
        talk.ask(*[asking()] * 5)
        await talk.begin()
        for _ in range(5):
            client.request(asking()[5:], path=INFER)
        await until(lambda: len(unary) == 5)
        assert talk.far.connection not in {request.connection for request in unary}
        for request in unary:
            request.answer(b"")


class Whims:
    """Streams that ask, are answered in whole or in part, reset, cancelled or lost, as a seed draws it."""

    def __init__(self, router: Router, client: RawClient, seed: int) -> None:
        self.router, self.client, self.draw = router, client, random.Random(seed)
        self.talks: list[Talk] = []

    async def one(self) -> None:
        what = self.draw.choice(["open", "ask", "ask", "answer", "answer", "cancel", "reset", "lose"])
        if what == "open" and len(self.talks) < 6:
            talk = Talk(self.router, self.client)
            talk.ask(*self.requests())
            await talk.begin()
            self.talks.append(talk)
        elif what == "lose" and self.draw.random() < 0.2:
            await self.lose()
        elif self.talks:
            talk = self.draw.choice(self.talks)
            with suppress(h2.exceptions.ProtocolError):
                await self.to(talk, what)

    async def lose(self) -> None:
        replicas = self.router.dispatcher.replicas.values()
        before = {connection for replica in replicas for connection in replica.connections}
        for connection in list(self.draw.choice(self.router.scripted).connections):
            connection.transport.abort()
        self.talks.clear()
        await until(lambda: bool(before.difference(*(replica.connections for replica in replicas))))
        await until(lambda: all(replica.connections for replica in replicas))

    async def to(self, talk: Talk, what: str) -> None:
        if what == "ask":
            talk.ask(*self.requests())
        elif what == "answer":
            said: list[Any] = [refusal(), answer("model"), answer("b"), answer("b", final=False)]
            await talk.answer(*self.draw.choices(said, k=3), pieces=self.draw.choice([3, 50, 1000]))
        elif what == "cancel":
            self.talks.remove(talk)
            self.client.h2.reset_stream(talk.stream, ErrorCode.CANCEL)
            self.client.flush()
        elif what == "reset":
            self.talks.remove(talk)
            talk.far.reset(ErrorCode.INTERNAL_ERROR)

    def requests(self) -> list[bytes]:
        return [
            asking(self.draw.choice(["model", "b"]), asks=self.draw.random() < 0.5)
            for _ in range(self.draw.randrange(1, 4))
        ]

    def negative(self) -> bool:
        return any(
            replica.in_flight < 0
            or any(min(stats.in_flight, stats.streaming) < 0 for stats in replica.stats.values())
            for replica in self.router.dispatcher.replicas.values()
        )


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_becomes_of_streams_their_requests_end_at_zero(seed: int) -> None:
    async with router_of(ScriptedReplica(nothing), ScriptedReplica(nothing), policy="least_work") as router:
        async with raw_client(router.port) as client:
            whims = Whims(router, client, seed)
            for _ in range(150):
                await whims.one()
                assert not whims.negative()
        # The client is gone in the middle of it all; `router_of` waits until nothing is in flight.
        await until(lambda: router.in_flight() == 0)
        stats = [one for replica in router.dispatcher.replicas.values() for one in replica.stats.values()]
        assert {one.streaming for one in stats} == {0}
        assert max(abs(replica.work_s) for replica in router.dispatcher.replicas.values()) < 1e-9


async def test_names_that_clients_make_up_do_not_fill_memory() -> None:
    async with router_of(ScriptedReplica(nothing)) as router:
        (replica,) = router.dispatcher.replicas.values()
        for number in range(MOST_STRANGERS + 10):
            replica.stats_of(f"made up {number}")
        assert len(replica.stats) <= MOST_STRANGERS + 2  # the one of the table, and the rest
        assert replica.stats_of("made up last") is replica.stats[""]
        assert replica.stats_of("model").model == "model"  # the table has it


# ---------------------------------------------------------------- what is read of a response


@pytest.mark.parametrize(
    ("data", "final", "model"),
    [
        (answer("a"), True, "a"),
        (answer("a", final=False), False, "a"),
        (answer("a", error="boom"), True, "a"),
        (answer("a", error="boom", final=False), False, "a"),
        (refusal(), True, ""),
        (refusal("x" * 10_000), True, ""),
        (message(b""), None, ""),
        (message(b"\xff\xff"), None, ""),
        (message(service_pb2.ModelStreamInferResponse().SerializeToString()), None, ""),
    ],
)
def test_the_last_response_is_told(data: bytes, final: bool | None, model: str) -> None:
    head = data[: peek.PEEK_LIMIT]
    assert (peek.peek_final(head), peek.peek_answering(head)) == (final, model)


def test_who_asks_for_an_empty_final_response() -> None:
    assert peek.asks_for_final(asking(asks=True))
    assert not peek.asks_for_final(asking())
    request = service_pb2.ModelInferRequest(model_name="m")
    request.parameters["triton_enable_empty_final_response"].bool_param = False
    assert not peek.asks_for_final(message(request.SerializeToString()))
