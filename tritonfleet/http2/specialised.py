"""A class's own copies of what it inherits, for code that runs for every frame.

CPython (from 3.11) rewrites an instruction in place for the types it meets there (PEP 659). A client's and a
replica's connection share the code of `Connection` and `Sender`; with both in one process each of those
places meets two types in turn, and stays slow. Copied code objects have instructions of their own to rewrite.
What that saves is in docs/performance.md.
"""

from types import FunctionType
from typing import TypeVar

T = TypeVar("T")


def with_own_code(cls: type[T]) -> type[T]:
    """A class decorator: gives ``cls`` a copy of every plain method it inherits. They do what they did."""
    for base in cls.__mro__[1:]:
        for name, inherited in vars(base).items():
            if type(inherited) is FunctionType and not name.startswith("__") and name not in vars(cls):
                copied = FunctionType(
                    inherited.__code__.replace(),
                    inherited.__globals__,
                    name,
                    inherited.__defaults__,
                    inherited.__closure__,
                )
                copied.__kwdefaults__ = inherited.__kwdefaults__
                copied.__qualname__, copied.__doc__ = inherited.__qualname__, inherited.__doc__
                copied.__annotations__ = inherited.__annotations__
                setattr(cls, name, copied)
    return cls
