"""Several replicas' answers to one question → the one answer a client gets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

OK, UNAVAILABLE = 0, 14  # gRPC status codes (grpc/status.h)


@dataclass(frozen=True, slots=True)
class Answer:
    """A replica's: its gRPC status, and the message's bytes if that is 0."""

    replica: str
    status: int
    text: str = ""
    message: bytes = b""

    @property
    def ok(self) -> bool:
        return self.status == OK


def status_name(status: int) -> str:
    names = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
             "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
             "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
             "UNAUTHENTICATED")  # fmt: skip
    return names[status] if 0 <= status < len(names) else f"status {status}"


def of_all(answers: Sequence[Answer]) -> Answer:
    """Success only if all succeeded. Where all failed alike, that is what one server would say, so it is
    passed as it is; else the first error's status, and which replica said what."""
    failed = [answer for answer in answers if not answer.ok]
    if not failed:
        return answers[0]
    first = failed[0]
    if len(failed) == len(answers) and all((a.status, a.text) == (first.status, first.text) for a in failed):
        return first
    done = [answer.replica for answer in answers if answer.ok]
    said = "; ".join(f"{a.replica}: {status_name(a.status)}: {a.text}" for a in failed)
    where = f" ({', '.join(done)})" if done else ""
    text = f"tritonfleet: done on {len(done)} of {len(answers)} replicas{where}, not on the others: {said}"
    return replace(first, text=text)


def of_any(answers: Sequence[Answer]) -> Answer:
    """Success if any succeeded; else as `of_all`."""
    for answer in answers:
        if answer.ok:
            return answer
    return of_all(answers)


# States of a model version, the most useful first; "" is one that was never loaded.
STATES = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE", "")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of a repository index. ``version`` is "" while none was ever loaded."""

    name: str
    version: str
    state: str
    reason: str = ""


def union_of_indexes(indexes: Sequence[Sequence[IndexEntry]]) -> list[IndexEntry]:
    """A version that is ready anywhere is ready. A line without a version says that nothing was loaded there:
    it counts only for models of which there is no other."""
    found: dict[tuple[str, str], IndexEntry] = {}
    for entry in (entry for index in indexes for entry in index):
        known = found.get((entry.name, entry.version))
        if known is None or _rank(entry) < _rank(known):
            found[entry.name, entry.version] = entry
    versioned = {name for name, version in found if version}
    return [
        entry for key, entry in sorted(found.items(), key=_index_order) if key[1] or key[0] not in versioned
    ]


def _rank(entry: IndexEntry) -> int:
    return STATES.index(entry.state) if entry.state in STATES else len(STATES)


def _index_order(item: tuple[tuple[str, str], IndexEntry]) -> tuple[str, int, str]:
    (name, version), _ = item
    return name, int(version) if version.isdigit() else 0, version
