"""The building blocks of the fleet file's models: durations, sizes, addresses, devices."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

from tritonfleet.config.errors import shown
from tritonfleet.config.units import (
    DURATION,
    SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


Whole = Annotated[int, Strict()]  # `true` is no number, whatever Python thinks
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_positive),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": DURATION}, {"type": "number", "exclusiveMinimum": 0}],
            "examples": ["250ms", "30s", "5m"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": SIZE}, {"type": "integer", "minimum": 0}],
            "examples": ["64m", "1g"],
        }
    ),
]


class Part(BaseModel):
    """What all parts share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Address(Part):
    """``host:port``; ``[::1]:8001`` for IPv6."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> object:
        """What a file says → what the fields take. Raises ValueError with an example."""
        if isinstance(value, Address):
            return value
        host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
            raise ValueError(f"{shown(value)} is not HOST:PORT; write it as 127.0.0.1:8001")
        if ":" in host and not re.fullmatch(r"\[.+\]", host):
            raise ValueError(f"{value!r} needs brackets around an IPv6 address: [::1]:8001")
        if host == "*":
            raise ValueError(f"{value!r} has no host; 0.0.0.0:{port} listens on every interface")
        return {"host": host.strip("[]"), "port": int(port)}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


ListenAddress = Annotated[
    Address,
    BeforeValidator(Address.parse),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^.+:\d+$", "examples": ["127.0.0.1:8001"]}),
]


class CpuSlots(Part):
    """Slots without a GPU."""

    cpu: Whole = Field(ge=1, le=1024)
    """How many replicas may run without a GPU."""


def _device_ids(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    ids = tuple("true" if isinstance(item, bool) else str(item) for item in value)
    if not all(re.fullmatch(r"[0-9]+|(GPU|MIG)-\S+", name) for name in ids):
        raise ValueError("a device is an index or a UUID")
    return ids


Devices = Annotated[
    Literal["auto"] | CpuSlots | Annotated[tuple[str, ...], Field(min_length=1)],
    BeforeValidator(_device_ids),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "auto"},
                {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1},
                {
                    "type": "object",
                    "properties": {"cpu": {"type": "integer", "minimum": 1, "maximum": 1024}},
                    "required": ["cpu"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
