"""Copied methods do what the inherited ones do, and share no code object with another class."""

from tritonfleet.http2.connection import Connection
from tritonfleet.http2.specialised import with_own_code
from tritonfleet.router.client import ClientConnection
from tritonfleet.router.replica import ReplicaConnection


class Base:
    def add(self, number: int, *, more: int = 2) -> int:
        """A sum."""
        return number + more

    def name(self) -> str:
        return "base"


class Middle(Base):
    def name(self) -> str:
        return f"middle of {super().name()}"


@with_own_code
class Leaf(Middle):
    pass


@with_own_code
class Other(Middle):
    def add(self, number: int, *, more: int = 40) -> int:
        return super().add(number, more=more)


def test_they_do_what_they_did() -> None:
    assert (Leaf().add(1), Leaf().add(1, more=5), Leaf().name()) == (3, 6, "middle of base")
    assert Leaf.add.__doc__ == "A sum."
    assert (Other().add(1), Other().name()) == (41, "middle of base")


def test_no_code_is_shared() -> None:
    assert len({found.add.__code__ for found in (Base, Leaf)}) == 1, "equal, as code compares by value"
    assert len({id(found.name.__code__) for found in (Middle, Leaf, Other)}) == 3


def test_the_routers_connections_have_their_own() -> None:
    for name in ("receive", "send_data", "credit", "flush"):
        kinds = (ClientConnection, ReplicaConnection)
        assert len({id(getattr(kind, name).__code__) for kind in kinds}) == 2, name
    assert ClientConnection.receive.__code__ is not Connection.receive.__code__
