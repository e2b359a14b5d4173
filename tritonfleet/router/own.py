"""Answers to the RPCs that speak of the whole fleet, not of one replica.

What the router knows it answers: whether the server lives, whether it is ready, whether a model is ready
somewhere. Everything else goes to the controller as bytes, which asks the replicas and remembers what must
be remembered. Without a controller those calls are refused; inference goes on.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from typing import TYPE_CHECKING

import msgspec

from tritonfleet.core.wire import RpcAnswer, RpcRequest
from tritonfleet.router import grpc
from tritonfleet.router.call import Call
from tritonfleet.router.fair import Turns
from tritonfleet.router.grpc import CHANGING_RPCS, SERVICE, Status
from tritonfleet.router.guard import refusal_of, rpc_name
from tritonfleet.router.management import READABLE, Management
from tritonfleet.router.transport import flush_all

if TYPE_CHECKING:
    import httpx

    from tritonfleet.router.dispatch import Dispatcher

log = logging.getLogger(__name__)

HEALTH_CHECK = b"/grpc.health.v1.Health/Check"
TRUE, FALSE = b"\x08\x01", b""  # a message whose field 1 is a bool
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # grpc.health.v1.HealthCheckResponse
LOAD = SERVICE + b"RepositoryModelLoad"
MESSAGE_LIMIT = 64 << 20  # bytes, decompressed: a load may carry the model's files
MOST = 16 << 10  # bytes of any other's, and decompressed four times as many
MOST_WITH_FILES = 4  # that are taken at a time
MOST_ASKED = 16  # of one connection, at a time, of the 100 that httpx has under way
PREFIX = 5  # bytes before a gRPC message
WITHOUT_DEADLINE_S = 60.0  # longer than the controller takes to ask all replicas
UNBOUNDED = (
    LOAD,
    SERVICE + b"RepositoryModelUnload",
)  # take as long as they take


class MessageError(Exception):
    """A request's message cannot be read; ``status`` is the gRPC status that says so."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class FleetAnswers:
    """See `router.keeping.OwnAnswers`."""

    def __init__(
        self, dispatcher: Dispatcher, control_socket: str, management: Management | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._management = management or Management()
        self._socket = control_socket
        self._http: httpx.AsyncClient | None = None
        self._asking: dict[asyncio.Task[None], Call] = {}
        self._turns = Turns(MOST_ASKED)
        self._with_files: set[Call] = set()  # whose bodies are larger than MOST

    def unfit(self, call: Call) -> tuple[Status, str] | None:
        path = call.info.path
        if not call.kept and path in CHANGING_RPCS and path not in READABLE:  # before its files come
            refusal = self._forbidden(call, b"")
            if refusal is not None:
                return refusal
        most = MESSAGE_LIMIT if path == LOAD else MOST
        if call.held_bytes > most + PREFIX:
            return Status.RESOURCE_EXHAUSTED, f"{rpc_name(path)} may have {most} bytes"
        if call.held_bytes > MOST + PREFIX:
            self._with_files.add(call)
            if len(self._with_files) > MOST_WITH_FILES:
                asking = self._asking.values()
                self._with_files = {one for one in self._with_files if not one.done or one in asking}
            if len(self._with_files) > MOST_WITH_FILES:
                text = f"{MOST_WITH_FILES} models are being loaded with their files"
                return Status.RESOURCE_EXHAUSTED, text
        elif not self._dispatcher.may_keep(call, call.uncounted):
            return Status.RESOURCE_EXHAUSTED, "too much is kept of requests that are not answered yet"
        return None

    def answer(self, call: Call, body: bytes) -> None:
        refusal = self._forbidden(call, body)
        local = None if refusal is not None else self._local(call, body)
        if refusal is None and local is None:
            task = self._dispatcher.loop.create_task(self._pass_on(call, body))
            self._asking[task] = call
            task.add_done_callback(self._asked)
            return
        self._dispatcher.uncount_kept(call)
        if local is not None:
            self._dispatcher.reply(call, local)
        elif refusal is not None:
            self._dispatcher.refuse(call, *refusal)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._dispatcher.uncount_kept(self._asking.pop(task))

    def _forbidden(self, call: Call, body: bytes) -> tuple[Status, str] | None:
        return refusal_of(self._management, call, body)

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        if self._http is not None:
            await self._http.aclose()

    # ------------------------------------------------------------ what the router knows

    def _local(self, call: Call, body: bytes) -> bytes | None:
        """The answer's message, if no one else needs to be asked."""
        path = call.info.path
        if len(body) == 5 and path == SERVICE + b"ServerLive":  # the message has no fields
            return TRUE
        if len(body) == 5 and path == SERVICE + b"ServerReady":
            return TRUE if self._ready() else FALSE
        if path == HEALTH_CHECK:
            return SERVING if self._ready() else NOT_SERVING
        if path == SERVICE + b"ModelReady" and body[:1] == b"\0":
            return self._model_ready(body[5:])
        return None

    def _ready(self) -> bool:
        """A server whose models sleep is ready: it answers what it is asked, if later."""
        dispatcher = self._dispatcher
        return bool(dispatcher.work.asleep) or any(one.available for one in dispatcher.replicas.values())

    def _model_ready(self, message: bytes) -> bytes | None:
        """Of a model as a whole. A version, or a model that the table does not have, is the controller's to
        look for: the words for what there is not are Triton's."""
        model = lone_string(message)
        if not model:
            return None
        serving = [r for r in self._dispatcher.replicas.values() if model in r.row.models]
        if model in self._dispatcher.work.asleep or any(replica.available for replica in serving):
            return TRUE
        return FALSE if serving else None

    # ------------------------------------------------------------ what the controller knows

    async def _pass_on(self, call: Call, body: bytes) -> None:
        dispatcher = self._dispatcher
        try:
            request = self._request_of(call, body)
            async with self._turns.turn(call.connection):
                if call.done:  # its client has not waited
                    return
                answer = await self._ask(request, unbounded=call.info.path in UNBOUNDED)
        except MessageError as error:
            dispatcher.refuse(call, error.status, str(error))
        else:
            if answer.status == Status.OK:
                dispatcher.reply(call, answer.message)
            elif not call.done:
                dispatcher.answer(call, grpc.trailers_only(answer.status, answer.text))
        flush_all(dispatcher.touched)

    def _request_of(self, call: Call, body: bytes) -> RpcRequest:
        """Without our own secret: it is not the replicas' to know."""
        request = request_of(call, body)
        if self._management.is_secret(call.fields.get(b"authorization")):
            del request.metadata["authorization"]
        return request

    async def _ask(self, request: RpcRequest, *, unbounded: bool) -> RpcAnswer:
        import httpx  # slow to import; a worker listens first

        if self._http is None:
            transport = httpx.AsyncHTTPTransport(uds=self._socket)
            self._http = httpx.AsyncClient(transport=transport, base_url="http://controller/v1", timeout=5.0)
        limit = None if unbounded else WITHOUT_DEADLINE_S
        if request.timeout_s is not None:
            limit = request.timeout_s
        rpc = request.path.rpartition("/")[2]
        try:
            async with asyncio.timeout(limit):
                response = await self._http.post(
                    "/router/rpc",
                    content=msgspec.json.encode(request),
                    headers={"content-type": "application/json"},
                    timeout=httpx.Timeout(5.0, read=None, write=None, pool=None),
                )
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=RpcAnswer)
        except TimeoutError:
            raise MessageError(
                Status.DEADLINE_EXCEEDED, f"{rpc}: no answer for the whole fleet within {limit:g} s"
            ) from None
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            log.warning("%s could not be handed to the controller: %r", rpc, error)
            raise MessageError(
                Status.UNAVAILABLE,
                f"{rpc} speaks of the whole fleet and needs its controller, which does not answer; "
                "inference goes on. `tritonfleet up` starts the controller again",
            ) from error


# ---------------------------------------------------------------- reading a request


def request_of(call: Call, body: bytes) -> RpcRequest:
    """A call and its body as the controller takes it. Raises MessageError."""
    metadata = {}
    encoding, timeout = b"identity", None
    for name, value in call.fields.items:
        if name == b"grpc-encoding":
            encoding = value
        elif name == b"grpc-timeout":
            timeout = grpc.parse_timeout(value)
        elif name == b"authorization" or name.startswith(b"triton-grpc-protocol-"):
            metadata[name.decode("ascii", "replace")] = value.decode("ascii", "replace")
    most = MESSAGE_LIMIT if call.info.path == LOAD else 4 * MOST
    return RpcRequest(
        call.info.path.decode("ascii", "replace"), message_of(body, encoding, most), metadata, timeout
    )


def message_of(body: bytes, encoding: bytes, most: int = MESSAGE_LIMIT) -> bytes:
    """The one message of a unary request's body; ``most`` bytes, decompressed. Raises MessageError."""
    if len(body) < 5 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise MessageError(Status.INTERNAL, "a unary request has one message, and all of it")
    message = body[5:]
    if body[0] == 0:
        return message
    if encoding not in (b"gzip", b"deflate"):
        name = encoding.decode("ascii", "replace")
        raise MessageError(Status.UNIMPLEMENTED, f"compression algorithm {name!r} is not supported")
    unpacking = zlib.decompressobj(wbits=31 if encoding == b"gzip" else 15)
    try:
        unpacked = unpacking.decompress(message, most + 1)
    except zlib.error as error:
        raise MessageError(Status.INTERNAL, f"the message cannot be decompressed: {error}") from error
    if len(unpacked) > most:
        raise MessageError(
            Status.RESOURCE_EXHAUSTED, f"a fleet-wide request may have {most} bytes, decompressed"
        )
    if not unpacking.eof:
        raise MessageError(Status.INTERNAL, "the message cannot be decompressed: it is cut off")
    return unpacked


def lone_string(message: bytes) -> str:
    """The string in field 1 of a message that has nothing else and is short, else ""."""
    if len(message) < 2 or message[0] != 0x0A or message[1] != len(message) - 2 or message[1] & 0x80:
        return ""
    try:
        return message[2:].decode()
    except UnicodeDecodeError:
        return ""
