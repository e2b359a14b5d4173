"""Many Tritons' metrics as one text that Prometheus's own parser takes."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from tritonfleet.controller import relay

ONE = """# HELP nv_requests Number of requests
# TYPE nv_requests counter
nv_requests{model="echo",version="1"} 3
# HELP nv_cpu Used
# TYPE nv_cpu gauge
nv_cpu 0.5
"""


def test_every_family_stands_once_and_every_sample_names_its_replica() -> None:
    merged = relay.merged({"main-0": ONE, "main-1": ONE.replace(" 3\n", " 4\n")})
    families = {family.name: family for family in text_string_to_metric_families(merged)}
    assert {sample.labels["replica"]: sample.value for sample in families["nv_requests"].samples} == {
        "main-0": 3,
        "main-1": 4,
    }
    assert all(sample.labels["model"] == "echo" for sample in families["nv_requests"].samples)
    assert [sample.labels for sample in families["nv_cpu"].samples] == [
        {"replica": "main-0"},
        {"replica": "main-1"},
    ]
    assert merged.count("# TYPE nv_cpu") == 1


def test_labels_of_any_shape() -> None:
    assert relay.labelled("a 1", "r") == 'a{replica="r"} 1'
    assert relay.labelled("a{} 1", "r") == 'a{replica="r"} 1'
    assert relay.labelled('a{b="{ c"} 1', "r") == 'a{replica="r",b="{ c"} 1'


def test_nobody_there_is_an_empty_text() -> None:
    assert relay.merged({}) == ""


async def test_one_that_does_not_answer_is_left_out() -> None:
    """One answers, one is silent, one is not there, one says 404."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if request.startswith(b"GET /metrics") else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\na 1\n")
        writer.close()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    speaking = await asyncio.start_server(answer, "127.0.0.1", 0)
    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with speaking, silent:
        here, quiet = (server.sockets[0].getsockname()[1] for server in (speaking, silent))
        urls = relay.urls([("a", "127.0.0.1", here), ("b", "127.0.0.1", quiet), ("c", "127.0.0.1", 1)])
        urls["d"] = f"http://127.0.0.1:{here}/elsewhere"
        texts, missing = await relay.fetch(urls, timeout_s=2.0)
    assert texts == {"a": "a 1\n"}
    assert missing == ["b", "c", "d"]


def test_an_ipv6_address_is_bracketed() -> None:
    assert relay.urls([("a", "::1", 9)]) == {"a": "http://[::1]:9/metrics"}
