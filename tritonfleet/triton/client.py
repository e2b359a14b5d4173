"""How the controller asks one Triton about itself: model readiness and statistics, over gRPC."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from tritonfleet.core.answers import OK, UNAVAILABLE
from tritonfleet.core.model import ModelStatus
from tritonfleet.core.replica_tls import NO_ANSWER, ReplicaTls
from tritonfleet.core.stats import ModelCounters
from tritonfleet.triton.statistics import counters_of

SERVICE = "/inference.GRPCInferenceService"
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # ports are reused by later replicas: share no connection state
]

GREETING_S = 0.3


class ProbeError(Exception):
    """A replica did not answer a question. The text says what happened in words a person reads.

    ``refused`` is True when nothing listens there, which while loading is the normal state
    (Triton opens its ports only after its start-up models are loaded).
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A gRPC status number and its text, and with status 0 the message's bytes."""

    status: int
    text: str = ""
    message: bytes = b""


class ReplicaClient(Protocol):
    """What the controller needs of one replica. `TritonClient` is the real one."""

    async def models(self, timeout: float) -> tuple[ModelStatus, ...]:
        """Every model of the repository index with its readiness, by name. Raises ProbeError."""

    async def statistics(self, timeout: float) -> tuple[ModelCounters, ...]:
        """The cumulative statistics of every loaded model version. Raises ProbeError."""

    async def call(
        self, path: str, message: bytes, timeout: float | None, metadata: Mapping[str, str]
    ) -> RawAnswer:
        """Any unary RPC, as bytes. A failure is an answer too: nothing is raised."""

    async def close(self) -> None: ...


class TritonClient:
    """One replica over gRPC. The channel is made at the first question and kept."""

    def __init__(self, host: str, port: int, tls: ReplicaTls | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._channel: grpc.aio.Channel | None = None
        self._index: Any = None
        self._statistics: Any = None

    async def models(self, timeout: float) -> tuple[ModelStatus, ...]:
        """See `ReplicaClient`. A closed port is told apart from everything else, without a channel."""
        if self._channel is None:
            await self._knock(timeout)
        answer = await self._ask(self._stub("index"), service_pb2.RepositoryIndexRequest(), timeout)
        found: dict[str, list[Any]] = {}
        for entry in answer.models:
            found.setdefault(entry.name, []).append(entry)
        return tuple(_status(name, entries) for name, entries in sorted(found.items()))

    async def statistics(self, timeout: float) -> tuple[ModelCounters, ...]:
        answer = await self._ask(self._stub("statistics"), service_pb2.ModelStatisticsRequest(), timeout)
        return tuple(counters_of(entry) for entry in answer.model_stats)

    async def call(
        self, path: str, message: bytes, timeout: float | None, metadata: Mapping[str, str]
    ) -> RawAnswer:
        """See `ReplicaClient`."""
        try:
            method = self._open().unary_unary(path, request_serializer=None, response_deserializer=None)
            answer = await method(message, timeout=timeout, metadata=tuple(metadata.items()))
        except ProbeError as error:
            return RawAnswer(UNAVAILABLE, str(error))
        except grpc.aio.AioRpcError as error:
            return RawAnswer(error.code().value[0], error.details() or "")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return RawAnswer(UNAVAILABLE, "the replica ended meanwhile")  # `close` cancels what is under way
        return RawAnswer(OK, "", answer)

    async def close(self) -> None:
        channel, self._channel, self._index = self._channel, None, None
        if channel is not None:
            await channel.close(None)

    async def _knock(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except ConnectionRefusedError:
            raise ProbeError(f"nothing listens on {self._host}:{self._port}", refused=True) from None
        except (OSError, TimeoutError) as error:
            raise ProbeError(
                f"no connection to {self._host}:{self._port}: {str(error) or f'timeout after {timeout:g} s'}"
            ) from error
        try:
            if not await _greets(reader):
                raise ProbeError(f"nothing listens behind {self._host}:{self._port}", refused=True)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self._new_channel(f"{self._host}:{self._port}")
        return self._channel

    def _new_channel(self, address: str) -> grpc.aio.Channel:
        """Raises ProbeError when the files of TLS cannot be read."""
        tls = self._tls
        if tls is None:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        try:
            pair = (Path(tls.key).read_bytes(), Path(tls.cert).read_bytes()) if tls.cert else ()
            credentials = grpc.ssl_channel_credentials(Path(tls.ca).read_bytes(), *pair)
        except OSError as error:
            raise ProbeError(f"triton.tls: {error}") from error
        named = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", tls.name)]
        return grpc.aio.secure_channel(address, credentials, options=named)

    def _stub(self, which: str) -> Any:
        if self._index is None:
            channel = self._open()
            self._index = channel.unary_unary(
                f"{SERVICE}/RepositoryIndex",
                request_serializer=service_pb2.RepositoryIndexRequest.SerializeToString,
                response_deserializer=service_pb2.RepositoryIndexResponse.FromString,
            )
            self._statistics = channel.unary_unary(
                f"{SERVICE}/ModelStatistics",
                request_serializer=service_pb2.ModelStatisticsRequest.SerializeToString,
                response_deserializer=service_pb2.ModelStatisticsResponse.FromString,
            )
        return self._index if which == "index" else self._statistics

    async def _ask(self, method: Any, request: Any, timeout: float) -> Any:
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ProbeError(f"no answer within {timeout:g} s") from error
            if error.code() is grpc.StatusCode.UNAVAILABLE and self._tls is not None:
                await self.close()  # the next channel reads the files anew: they may have been replaced
                raise ProbeError(f"{NO_ANSWER}: {handshake_words(error.details() or '')}") from error
            raise ProbeError(f"{error.code().name}: {error.details()}") from error


def handshake_words(details: str) -> str:
    """gRPC's account of a handshake that failed, without its layers: "CERTIFICATE_VERIFY_FAILED: certificate
    has expired". All of it where the reason is of another kind."""
    found = re.search(r"OPENSSL_internal:(.+?)(?:: OK)?$", details)
    return found[1] if found else details


async def _greets(reader: asyncio.StreamReader) -> bool:
    """False when the connection is closed without a word. An HTTP/2 server speaks first; a proxy in front of
    a closed port, such as Docker's, accepts and hangs up. Silence says neither."""
    try:
        async with asyncio.timeout(GREETING_S):
            return bool(await reader.read(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def _status(name: str, entries: list[Any]) -> ModelStatus:
    ready = sorted((entry.version for entry in entries if entry.state == "READY"), key=_version_order)
    reasons = [entry.reason or entry.state.lower() for entry in entries if entry.state != "READY"]
    return ModelStatus(name, bool(ready), tuple(ready), "" if ready else next(iter(reasons), ""))


def _version_order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (0, version)
