"""A client gives up, whatever its call is doing: the replica hears of it at once if it has heard of the call,
nothing is in flight or waits afterwards, and the connection's other calls go on."""

from collections.abc import Awaitable, Callable

import h2.events
import pytest
from router_parts import (
    OK,
    RawClient,
    Request,
    Router,
    ScriptedReplica,
    message,
    raw_client,
    router_of,
    until,
)
from test_router_duties import windows_are_whole
from test_router_peek import infer

from tritonfleet.http2.frames import ErrorCode

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


class Scene:
    """Two replicas that answer nothing by themselves, a client, and the stream that it will give up."""

    def __init__(self, router: Router, client: RawClient) -> None:
        self.router, self.client = router, client

    def begin(self, data: bytes, path: str = INFER) -> int:
        """A request whose body begins with ``data`` and has not ended."""
        stream = self.client.request(None, path=path)
        self.client.h2.send_data(stream, data)
        self.client.flush()
        return stream

    @property
    def open(self) -> list[Request]:
        """What the replicas have heard of and not ended."""
        return [
            request
            for replica in self.router.scripted
            for connection in replica.connections
            for request in connection.requests.values()
            if not connection.h2.streams[request.stream].closed
        ]

    async def heard(self, size: int = 1) -> Request:
        await until(lambda: any(len(request.body) >= size for request in self.open))
        (request,) = self.open
        return request

    def answer(self, request: Request, size: int) -> None:
        """So many bytes of a longer message."""
        request.connection.h2.send_headers(request.stream, OK)
        request.connection.h2.send_data(request.stream, message(bytes(20_000))[:size])
        request.connection.flush()


async def before_its_body(scene: Scene) -> int:
    return scene.client.request(None, path=INFER)


async def before_its_model_is_known(scene: Scene) -> int:
    return scene.begin(infer()[:6])


async def in_the_middle_of_its_body(scene: Scene) -> int:
    stream = scene.begin(infer() + bytes(5000))
    await scene.heard(5000)
    return stream


async def unanswered(scene: Scene) -> int:
    stream = scene.client.request(infer()[5:], path=INFER)
    await scene.heard()
    return stream


async def in_the_middle_of_its_answer(scene: Scene) -> int:
    stream = await unanswered(scene)
    scene.answer(scene.open[0], 1000)
    await until(lambda: len(scene.client.body(stream)) == 1000)
    return stream


async def with_an_answer_that_it_does_not_take(scene: Scene) -> int:
    scene.client.credits = False
    scene.client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
    scene.client.flush()
    await until(lambda: bool(scene.client.of(h2.events.SettingsAcknowledged)))
    stream = await unanswered(scene)
    scene.answer(scene.open[0], 1000)
    await until(lambda: len(scene.client.body(stream)) == 100)
    return stream


async def sent_again(scene: Scene) -> int:
    stream = await unanswered(scene)
    scene.open[0].connection.transport.abort()
    await until(lambda: scene.router.dispatcher.retries_total == 1)
    await scene.heard()
    return stream


async def a_stream_with_requests(scene: Scene) -> int:
    stream = scene.begin(infer() * 3, path=STREAM)
    await scene.heard(3 * len(infer()))
    assert scene.router.in_flight() == 6  # by replica and by model
    return stream


async def a_stream_at_rest(scene: Scene) -> int:
    stream = scene.begin(infer(), path=STREAM)
    request = await scene.heard(len(infer()))
    request.connection.h2.send_headers(request.stream, OK)
    request.connection.h2.send_data(request.stream, message(b"\x0a\x01x\x12\x00"))
    request.connection.flush()
    await until(lambda: scene.router.in_flight() == 0)
    return stream


async def waiting_for_a_slot(scene: Scene) -> int:
    for replica in scene.router.dispatcher.replicas.values():
        replica.stats_of("m").slots = 1
        replica.stats_of("m").in_flight = 1
    stream = scene.client.request(infer()[5:], path=INFER)
    await until(lambda: scene.router.dispatcher.waiting_count == 1)
    for replica in scene.router.dispatcher.replicas.values():
        replica.stats_of("m").in_flight = 0
    return stream


async def waiting_for_room_on_a_connection(scene: Scene) -> int:
    connections = [one for r in scene.router.dispatcher.replicas.values() for one in r.connections]
    room = [one.peer_max_streams for one in connections]
    for one in connections:
        one.peer_max_streams = 0
    stream = scene.client.request(infer(size=10_000)[5:], path=INFER)
    await until(lambda: scene.router.dispatcher.waiting_count == 1)
    for one, most in zip(connections, room, strict=True):
        one.peer_max_streams = most
    return stream


async def waiting_for_a_model_that_sleeps(scene: Scene) -> int:
    scene.router.dispatcher.work.asleep = {"m": 60.0}
    stream = scene.client.request(infer()[5:], path=INFER)
    await until(lambda: scene.router.dispatcher.waiting_count == 1)
    scene.router.dispatcher.work.asleep = {}
    scene.router.dispatcher.choose_anew()
    return stream


STATES = [
    before_its_body, before_its_model_is_known, in_the_middle_of_its_body, unanswered,
    in_the_middle_of_its_answer, with_an_answer_that_it_does_not_take, sent_again, a_stream_with_requests,
    a_stream_at_rest, waiting_for_a_slot, waiting_for_room_on_a_connection, waiting_for_a_model_that_sleeps,
]  # fmt: skip


@pytest.mark.parametrize("loses_all", [False, True], ids=["reset", "hang up"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_giving_up(state: Callable[[Scene], Awaitable[int]], loses_all: bool) -> None:
    replicas = [ScriptedReplica(lambda _request: None) for _ in range(2)]
    async with (
        router_of(*replicas) as router,
        raw_client(router.port) as client,
        raw_client(router.port) as other,
    ):
        scene = Scene(router, client)
        stream = await state(scene)
        heard = scene.open
        for replica in replicas:
            replica.seen.clear()
        if loses_all:
            client.transport.abort()
        else:
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
            client.flush()
        await until(lambda: not scene.open)
        resets = [e for replica in replicas for e in replica.seen if isinstance(e, h2.events.StreamReset)]
        assert [reset.error_code for reset in resets] == [ErrorCode.CANCEL] * len(heard)
        await until(lambda: router.in_flight() == 0)
        await until(lambda: router.dispatcher.waiting_count == 0)
        assert (router.dispatcher.kept_bytes, router.dispatcher.held.total) == (0, 0)
        if not loses_all and state is not with_an_answer_that_it_does_not_take:  # it gave no window back
            await windows_are_whole(router, client)
        for replica in replicas:
            replica.on_request = lambda request: request.answer(b"yes")
        after = (other if loses_all else client).request(infer()[5:], path=INFER)
        assert await (other if loses_all else client).finished(after) == (0, "")
