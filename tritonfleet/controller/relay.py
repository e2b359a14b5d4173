"""Triton's own metrics of every replica, at one address: fetched from each, told apart by a label.

``texts`` of several servers become one text in which every family stands once, as Prometheus wants it.
"""

import asyncio
from collections.abc import Iterable, Mapping

import httpx

TIMEOUT_S = 2.0  # for one replica; they are asked at once


def merged(texts: Mapping[str, str]) -> str:
    """By replica, what its Triton exports → one text; each sample gets a label ``replica``."""
    comments: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for replica, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                known = comments.setdefault(family, [])
                if not any(one.startswith(line[:7]) for one in known):
                    known.append(line)
            elif line and not line.startswith("#"):
                samples.setdefault(family, []).append(labelled(line, replica))
    lines = [line for family, found in samples.items() for line in (*comments.get(family, ()), *found)]
    return "\n".join(lines) + "\n" if lines else ""


def labelled(sample: str, replica: str) -> str:
    """``a{b="c"} 1`` → ``a{replica="main-0",b="c"} 1``. A replica's id needs no escapes."""
    end = next((index for index, char in enumerate(sample) if char in "{ "), len(sample))
    name, rest = sample[:end], sample[end:]
    if not rest.startswith("{"):
        return f'{name}{{replica="{replica}"}}{rest}'
    comma = "" if rest[1:].lstrip().startswith("}") else ","
    return f'{name}{{replica="{replica}"{comma}{rest[1:]}'


async def fetch(urls: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> tuple[dict[str, str], list[str]]:
    """Ask each replica at its URL: what those said that answered in time, and who did not."""
    async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
        answers = await asyncio.gather(*(_one(client, url, timeout_s) for url in urls.values()))
    found = dict(zip(urls, answers, strict=True))
    return {name: text for name, text in found.items() if text is not None}, _silent(found)


def _silent(found: Mapping[str, str | None]) -> list[str]:
    return [name for name, text in found.items() if text is None]


async def _one(client: httpx.AsyncClient, url: str, timeout_s: float) -> str | None:
    try:
        async with asyncio.timeout(timeout_s):  # of the whole: httpx's own is from byte to byte
            answer = await client.get(url)
    except (httpx.HTTPError, TimeoutError):
        return None
    return answer.text if answer.status_code == httpx.codes.OK else None


def urls(places: Iterable[tuple[str, str, int]]) -> dict[str, str]:
    """(replica, host, metrics port) → where each is asked."""
    return {
        name: f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
        for name, host, port in places
    }
