"""gRPC over HTTP/2 as the router needs it: status trailers, what a request asks for, the message's model.

Bodies are never parsed: `peek_model` reads the first few bytes of the first message, no more.
"""

from enum import IntEnum
from urllib.parse import quote_from_bytes

from tritonfleet.core.limits import RouterLimits
from tritonfleet.http2.fieldrules import request_fault
from tritonfleet.http2.fields import Fields, encode
from tritonfleet.http2.stream import Buffer

DEFAULT_LIMITS = RouterLimits()
SERVICE = b"/inference.GRPCInferenceService/"

# RPCs whose request message begins with the model's name as field 1 (grpc_service.proto).
MODEL_RPCS = frozenset(
    SERVICE + name
    for name in (
        b"ModelInfer",
        b"ModelStreamInfer",
        b"ModelReady",
        b"ModelMetadata",
        b"ModelConfig",
        b"ModelStatistics",
    )
)
# RPCs that speak of the whole server: the router answers them itself (`router.own`), for the fleet.
OWN_RPCS = frozenset(
    SERVICE + name
    for name in (
        b"ServerLive",
        b"ServerReady",
        b"ModelReady",
        b"ModelStatistics",
        b"RepositoryIndex",
        b"RepositoryModelLoad",
        b"RepositoryModelUnload",
        b"SystemSharedMemoryStatus",
        b"SystemSharedMemoryRegister",
        b"SystemSharedMemoryUnregister",
        b"CudaSharedMemoryStatus",
        b"CudaSharedMemoryRegister",
        b"CudaSharedMemoryUnregister",
        b"TraceSetting",
        b"LogSettings",
    )
) | {b"/grpc.health.v1.Health/Check"}
INFER_RPCS = frozenset((SERVICE + b"ModelInfer", SERVICE + b"ModelStreamInfer"))
# What changes a server: never sent twice unless it was provably not looked at.
CHANGING_RPCS = frozenset(
    SERVICE + name
    for name in (
        b"RepositoryModelLoad",
        b"RepositoryModelUnload",
        b"SystemSharedMemoryRegister",
        b"SystemSharedMemoryUnregister",
        b"CudaSharedMemoryRegister",
        b"CudaSharedMemoryUnregister",
        b"TraceSetting",
        b"LogSettings",
    )
)
LONGEST_NAME = 255  # bytes of a model's name: it is a folder's (NAME_MAX)
STREAMING_RPCS = frozenset(
    (SERVICE + b"ModelStreamInfer", b"/grpc.health.v1.Health/Watch", SERVICE + b"RepositoryModelStream")
)


class Status(IntEnum):
    """gRPC status codes (grpc/status.h)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


# What a response without grpc-status means, by its HTTP status (gRPC's http-grpc-status-mapping).
FROM_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}


# What a person with a browser or curl gets to read.
NOT_GRPC = b"tritonfleet: this address speaks gRPC: POST with content-type application/grpc\n"
BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
NOT_GRPC_FIELDS = ((b"content-type", b"text/plain"), (b"content-length", str(len(NOT_GRPC)).encode()))


class RequestInfo:
    """What one header list of a client asks for; parsed once per distinct list."""

    __slots__ = (
        "content_length",
        "fault",
        "infers",
        "is_own",
        "names_model",
        "path",
        "plain",
        "refusal",
        "refusal_body",
        "repeatable",
        "streaming",
        "timeout_s",
    )

    def __init__(self, fields: Fields, limits: RouterLimits = DEFAULT_LIMITS) -> None:
        self.path = fields.get(b":path") or b""
        self.names_model = self.path in MODEL_RPCS
        self.infers = self.path in INFER_RPCS
        self.is_own = self.path in OWN_RPCS
        self.streaming = self.path in STREAMING_RPCS
        # Inference is a pure function of its inputs; so are the questions about models.
        self.repeatable = (
            self.path.startswith(SERVICE) and self.path not in CHANGING_RPCS and not self.streaming
        )
        self.timeout_s = parse_timeout(fields.get(b"grpc-timeout"))
        self.fault = request_fault(fields.items, limits.fields)
        self.refusal_body = NOT_GRPC
        self.refusal = self._refusal(fields) or self._unfit(fields, limits.metadata)
        length = fields.get(b"content-length")
        self.content_length = int(length) if length and not self.fault else None
        # The usual request: there is nothing to do about it before its body comes.
        self.plain = (
            not self.fault and self.refusal is None and self.timeout_s is None and self.content_length is None
        )

    def _refusal(self, fields: Fields) -> bytes | None:
        """The header block that answers a request which is not gRPC, or None."""
        content_type = fields.get(b"content-type") or b""
        if fields.get(b":method") != b"POST":
            return encode(((b":status", b"405"), (b"allow", b"POST"), *NOT_GRPC_FIELDS))
        if not self.path.startswith(b"/"):
            return encode(((b":status", b"400"), *NOT_GRPC_FIELDS))
        if not content_type.startswith(b"application/grpc"):
            return encode(((b":status", b"415"), *NOT_GRPC_FIELDS))
        return None

    def _unfit(self, fields: Fields, most_metadata: int) -> bytes | None:
        """The answer to a gRPC request whose metadata a replica would answer by ending the connection, which
        it shares with other clients' calls (CVE-2023-32732), or None."""
        text = ""
        if fields.size > most_metadata:
            status = Status.RESOURCE_EXHAUSTED
            most = f"at most {most_metadata} are taken (router.limits.metadata)"
            text = f"the metadata has {fields.size} bytes, {most}"
        elif broken := [
            name for name, value in fields.items if name[-4:] == b"-bin" and not is_base64(value)
        ]:
            status = Status.INTERNAL
            text = f"metadata {broken[0].decode('ascii', 'replace')!r} is not base64"
        if not text:
            return None
        self.refusal_body = b""
        return trailers_only(status, f"tritonfleet: {text}")


def is_base64(value: bytes) -> bool:
    """Whether ``-bin`` metadata can be read: base64 with or without its padding; several, with commas."""
    for part in value.split(b","):
        bare = part.rstrip(b"=")
        padding = len(part) - len(bare)
        if len(bare) % 4 == 1 or (padding and len(part) % 4) or not BASE64.issuperset(bare):
            return False
    return True


TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_timeout(value: bytes | None) -> float | None:
    """Seconds of a grpc-timeout header (at most 8 digits and a unit); None without one, or if malformed."""
    if not value or not value[:-1].isdigit() or len(value) > 9:
        return None
    unit = TIMEOUT_UNITS.get(value[-1:])
    return int(value[:-1]) * unit if unit is not None else None


def with_timeout(fields: Fields, left_s: float) -> bytes:
    """The request's header block with ``left_s`` seconds as its grpc-timeout: what is left of it after some
    time in the router."""
    micros = max(1, int(left_s * 1e6))
    if micros < 10**8:  # at most 8 digits
        value = b"%du" % micros
    elif micros < 10**11:
        value = b"%dm" % (micros // 1000)
    else:
        value = b"%dS" % min(micros // 10**6, 99_999_999)
    return encode(tuple((name, value if name == b"grpc-timeout" else given) for name, given in fields.items))


def request_info(fields: Fields, limits: RouterLimits = DEFAULT_LIMITS) -> RequestInfo:
    if fields.info is None:
        fields.info = RequestInfo(fields, limits)
    info: RequestInfo = fields.info
    return info


def status_of(fields: Fields) -> int:
    """The gRPC status that a response's last header list carries, or the one its HTTP status stands for."""
    if fields.info is None:
        raw = fields.get(b"grpc-status")
        if raw is not None and raw.isdigit():
            fields.info = int(raw)
        else:
            http = fields.get(b":status") or b""
            fields.info = FROM_HTTP.get(int(http), 2) if http.isdigit() else 2
    status: int = fields.info
    return status


# How Triton words that it has not executed a request: the model, or the whole server, is on its way out.
NOT_EXECUTED = (b"Request for unknown model: ", b"Server is stopping", b"Server exiting")
# How gRPC's C core words, as INTERNAL or UNKNOWN, that it could not make a request of what a client sent.
UNREADABLE = (
    b"Unable to parse request",
    b"Unexpected error decompressing data",
    b"Error parsing '",
    b"Missing :te header",
    b"Missing :authority header",
)
REQUEST_ID = b"[request id: "  # what Triton puts before some messages, with the id and "] "


def was_not_executed(fields: Fields) -> bool:
    """Whether a response without a message says that the replica did not execute the request, for lack of
    the model there. A model that fails has other statuses."""
    if status_of(fields) not in (Status.NOT_FOUND, Status.UNAVAILABLE):
        return False
    words = fields.get(b"grpc-message") or b""
    if words.startswith(REQUEST_ID):
        words = words.partition(b"] ")[2]
    return words.startswith(NOT_EXECUTED)


def was_unreadable(fields: Fields) -> bool:
    """Whether a response says that the request itself is at fault, though its status is one of a broken
    server's: otherwise one client could have healthy replicas left out."""
    return (fields.get(b"grpc-message") or b"").startswith(UNREADABLE)


def _status_items(status: int, message: str) -> tuple[tuple[bytes, bytes], ...]:
    # Percent-encoding as in the gRPC over HTTP/2 specification: everything but printable ASCII, and "%".
    text = quote_from_bytes(message.encode(), safe=b" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    return ((b"grpc-status", str(int(status)).encode()), (b"grpc-message", text))


def trailers(status: int, message: str) -> bytes:
    """A header block that ends a response already begun."""
    return encode(_status_items(status, message))


def trailers_only(status: int, message: str, pushback_s: float | None = None) -> bytes:
    """A header block that is a whole response: an answer of the router's own."""
    items = ((b":status", b"200"), (b"content-type", b"application/grpc"), *_status_items(status, message))
    if pushback_s is not None:
        items = (*items, (b"grpc-retry-pushback-ms", b"%d" % max(1, round(pushback_s * 1000))))
    return encode(items)


def peek_model(data: Buffer) -> str | None:
    """The model's name at the start of a request's first message; "" if it names none (or is compressed, and
    its bytes say nothing); None while too few bytes have arrived to tell.

    A gRPC message is a flag byte, a 4-byte length, then the protobuf: field 1, a string, is the tag 0x0A, a
    varint length, and the bytes.
    """
    size = len(data)
    if size < 5:
        return None
    if data[0] != 0 or not (data[4] or data[3] or data[2] or data[1]):
        return ""
    if size < 7:
        return None
    if data[5] != 0x0A:
        return ""
    length, start = data[6], 7
    if length & 0x80:
        if size < 8:
            return None
        length, start = (length & 0x7F) | (data[7] << 7), 8
        if length > LONGEST_NAME:  # no model has such a name: let the replica say what is wrong
            return ""
    if size < start + length:
        return None
    try:
        return str(data[start : start + length], "utf-8")
    except UnicodeDecodeError:
        return ""
