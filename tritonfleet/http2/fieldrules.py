"""What a request's header list must look like (RFC 9113, 8.2 and 8.3): the rules that keep one connection's
bytes from meaning something else on another ("header smuggling")."""

from tritonfleet.http2.fields import HeaderList

MOST_FIELDS = 100  # Envoy's max_headers_count
PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
REQUIRED = frozenset((b":method", b":scheme", b":path"))
# Fields that are about one connection only (RFC 9113, 8.2.2).
CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
# Lowercase token characters (RFC 9110, 5.6.2).
NAME_CHARACTERS = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
FORBIDDEN_IN_VALUES = (b"\r", b"\n", b"\0")


def request_fault(items: HeaderList, most: int = MOST_FIELDS) -> str:
    """What is wrong with a request's header list, or "". Run once per distinct list, not per request."""
    if len(items) > most:
        return f"{len(items)} header fields, at most {most} are taken"
    seen: set[bytes] = set()
    regular = False
    for name, value in items:
        if name.startswith(b":"):
            if regular:
                return f"{name!r} after a regular field"
            if name not in PSEUDO:
                return f"unknown pseudo-header {name!r}"
            if name in seen:
                return f"{name!r} twice"
            seen.add(name)
        else:
            regular = True
            fault = _regular_fault(name, value)
            if fault:
                return fault
        if any(character in value for character in FORBIDDEN_IN_VALUES):
            return f"{name!r} holds a control character"
        if name in PSEUDO and (not value or value.strip(b" \t") != value):  # elsewhere gRPC clients send it
            return f"{name.decode()} is empty or has white space around it"
    if sum(name == b"host" for name, _ in items) > 1:
        return "b'host' twice (RFC 9110, 7.2)"
    authorities = {value for name, value in items if name in (b":authority", b"host")}
    if len(authorities) > 1:
        return "two authorities (RFC 9113, 8.3.1)"
    lengths = {value for name, value in items if name == b"content-length"}
    if len(lengths) > 1 or not all(value.isdigit() and len(value) < 20 for value in lengths):
        return "a content-length that is none"
    missing = REQUIRED - seen
    if missing:
        return f"no {min(missing).decode()}"
    return ""


def trailers_fault(items: HeaderList, most: int = MOST_FIELDS) -> str:
    """What is wrong with a request's trailers (RFC 9113, 8.1), or ""."""
    if len(items) > most:
        return f"{len(items)} trailer fields, at most {most} are taken"
    for name, value in items:
        if name.startswith(b":"):
            return f"{name!r} in trailers"
        fault = _regular_fault(name, value)
        if fault:
            return fault
        if any(character in value for character in FORBIDDEN_IN_VALUES):
            return f"{name!r} holds a control character"
    return ""


def _regular_fault(name: bytes, value: bytes) -> str:
    if not name or not NAME_CHARACTERS.issuperset(name):
        return f"{name!r} is not a field name in lower case"
    if name in CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
        return f"{name!r} is about another connection"
    return ""
