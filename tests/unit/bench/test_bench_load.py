"""Loads against a scripted server: both loops, sequences, windows, and servers that fail."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tritonclient.grpc import service_pb2 as pb

from tritonfleet.bench import schedule
from tritonfleet.bench.client import LoadClient
from tritonfleet.bench.results import LATE_S, ClientCost, Level, histogram, percentile
from tritonfleet.bench.run import Bench, Concurrency, Intervals, Load, Plan, Progress, RequestRate
from tritonfleet.bench.traffic import Bodies, SequenceBodies
from tritonfleet.triton import messages
from tritonfleet.triton.messages import ModelInfo

if TYPE_CHECKING:
    from router_parts import Request, ScriptedReplica

MODEL = ModelInfo("m", "", (), 0, sequences=False, decoupled=False, tells_replica=True)
HEAD = messages.infer_head("m", "")


def answer(request: "Request", replica: str = "main-1.4") -> None:
    response = pb.ModelInferResponse(model_name="m")
    response.outputs.add(name="REPLICA", datatype="BYTES", shape=[1])
    text = replica.encode()
    response.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
    if request.headers[":path"].endswith("ModelInfer"):
        request.answer(response.SerializeToString())
    else:
        request.answer(b"", trailers=[("grpc-status", "12")])


async def measured(
    load: Load,
    plan: Plan,
    on_request: "Callable[[Request], object]" = answer,
    *,
    bodies: Callable[[], Bodies | SequenceBodies] = lambda: Bodies(HEAD, [b""]),
    timeout_s: float = 10.0,
    tell: Callable[[Progress], None] = lambda _progress: None,
    stop: asyncio.Event | None = None,
    script: "Callable[[ScriptedReplica], object]" = lambda _server: None,
) -> "tuple[Level, ScriptedReplica]":
    from router_parts import ScriptedReplica

    server = ScriptedReplica(on_request)
    script(server)
    await server.start()
    client = LoadClient("127.0.0.1", server.port, 2, timeout_s)
    await client.open()
    try:
        bench = Bench(client, MODEL, bodies, plan, tell, stop or asyncio.Event())
        return await bench.measure(load), server
    finally:
        await client.close()
        await server.stop()


def inferences(server: "ScriptedReplica") -> list[pb.ModelInferRequest]:
    return [
        pb.ModelInferRequest.FromString(bytes(request.body[5:]))
        for request in server.requests
        if request.headers[":path"].endswith("ModelInfer")
    ]


async def test_a_closed_loop_sends_no_more_than_it_may() -> None:
    out = most = 0

    def begun(request: "Request") -> None:
        nonlocal out, most
        if request.headers[":path"].endswith("ModelInfer"):
            out += 1
            most = max(most, out)

    def ended(request: "Request") -> None:
        nonlocal out
        out -= request.headers[":path"].endswith("ModelInfer")
        answer(request)

    def delayed(request: "Request") -> None:
        asyncio.get_running_loop().call_later(0.001, ended, request)

    level, server = await measured(
        Concurrency(3), Plan(request_count=50), delayed, script=lambda s: setattr(s, "on_start", begun)
    )
    assert (level.requests, level.failed, level.unanswered, most) == (50, 0, 0, 3)
    assert len(inferences(server)) == 50
    assert level.replicas == {"main-1": 50}
    assert level.replicas_by == "answers"
    assert not level.stable
    assert level.client.cpu > 0


async def test_windows_until_stable() -> None:
    seen: list[Progress] = []
    plan = Plan(window_count=20, warmup_s=0.05, stability=100_000.0)
    level, _ = await measured(Concurrency(2), plan, tell=seen.append)
    assert level.stable
    assert len(level.windows) == 3
    assert level.requests >= 60
    assert {progress.phase for progress in seen} >= {"warming up", "window 1", "window 3"}
    assert [p.share for p in seen] == sorted(p.share for p in seen)


async def test_an_unstable_load_is_reported_after_the_last_trial() -> None:
    level, _ = await measured(
        Concurrency(1), Plan(window_count=5, warmup_requests=2, stability=1e-9, max_trials=4)
    )
    assert not level.stable
    assert len(level.windows) == 4
    assert level.requests >= 15, "the last three windows are reported"
    assert "differ" in level.reason


async def test_an_open_loop_sends_whatever_is_out() -> None:
    """Nothing is answered before all has been sent; latency counts from when each was due."""
    held: list[Request] = []

    def hold(request: "Request") -> None:
        if not request.headers[":path"].endswith("ModelInfer"):
            answer(request)
            return
        held.append(request)
        if len(held) == 40:
            for waiting in held:
                answer(waiting)
                waiting.connection.flush()

    level, _ = await measured(RequestRate(2000.0, "poisson"), Plan(request_count=40), hold)
    assert (level.requests, len(held)) == (40, 40)
    assert level.percentiles_s["99.9"] > level.percentiles_s["50"]
    assert level.client.late_p99_s is not None


async def test_a_generator_that_cannot_send_so_much_says_that_it_was_measured() -> None:
    """3,000 requests within 3 ms: no process can do that, so it is the generator that is the limit."""
    level, _ = await measured(RequestRate(1e6), Plan(request_count=3000))
    assert level.client.limit != ""
    assert level.client.late_p99_s is not None
    assert level.client.late_p99_s > LATE_S
    assert level.rate < 1e5


async def test_intervals_of_a_trace() -> None:
    load = Intervals([0.001, 0.003])
    assert load.value == pytest.approx(500.0)
    level, _ = await measured(load, Plan(request_count=10))
    assert (level.kind, level.requests) == ("request_intervals", 10)


async def test_failures_by_status_with_their_words() -> None:
    count = 0

    def every_other(request: "Request") -> None:
        nonlocal count
        count += 1
        if count % 2 or not request.headers[":path"].endswith("ModelInfer"):
            answer(request)
        else:
            request.answer(b"", trailers=[("grpc-status", "8"), ("grpc-message", "too%20much")])

    level, _ = await measured(Concurrency(1), Plan(request_count=20), every_other)
    assert level.requests + level.failures["RESOURCE_EXHAUSTED"] == 20
    assert level.failure_texts == {"RESOURCE_EXHAUSTED": "too much"}
    assert level.rate < 20 / level.seconds


async def test_lost_connections_are_opened_again() -> None:
    count = 0

    def hang_up_once(request: "Request") -> None:
        nonlocal count
        count += 1
        if count == 5:
            request.connection.transport.abort()
        else:
            answer(request)

    level, server = await measured(Concurrency(2), Plan(request_count=30), hang_up_once)
    assert level.requests >= 25
    assert set(level.failures) == {"UNAVAILABLE"}
    assert "connection was lost" in level.failure_texts["UNAVAILABLE"]
    assert len(server.requests) > 5


async def test_a_silent_server_is_given_up() -> None:
    def silent(request: "Request") -> None:
        if not request.headers[":path"].endswith("ModelInfer"):
            answer(request)

    level, server = await measured(Concurrency(1), Plan(request_count=1), silent, timeout_s=0.05)
    assert level.failures == {"DEADLINE_EXCEEDED": 1}
    assert level.mean_s is None
    assert server.requests[-1].headers["grpc-timeout"] == "50m"


async def test_a_server_that_goes_for_good_fails_what_is_left() -> None:
    servers: list[ScriptedReplica] = []
    count = 0

    def die(request: "Request") -> None:
        nonlocal count
        count += 1
        if count < 8:
            answer(request)
        else:
            servers[0].hang_up()

    plan, script = Plan(request_count=20), servers.append
    level, _ = await measured(Concurrency(4), plan, die, timeout_s=0.2, script=script)
    assert level.requests + level.failures["UNAVAILABLE"] == 20
    assert level.failures["UNAVAILABLE"] >= 13
    assert level.unanswered == 0


async def test_streams_the_server_does_not_allow_wait_here() -> None:
    def delayed(request: "Request") -> None:
        asyncio.get_running_loop().call_later(0.002, answer, request)

    def few(server: "ScriptedReplica") -> None:
        import h2.settings

        server.settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2}

    level, _ = await measured(Concurrency(20), Plan(request_count=100), delayed, script=few)
    assert (level.requests, level.failed) == (100, 0)
    assert level.client.queued_most >= 10


async def test_sequences_begin_go_on_and_end_in_order() -> None:
    steps = [[messages.infer_tail([])]]
    plan = Plan(request_count=30)
    level, server = await measured(Concurrency(3), plan, bodies=lambda: SequenceBodies(HEAD, steps, 5, 100))
    assert level.requests == 30
    by_id: dict[int, list[tuple[bool, bool]]] = {}
    for request in inferences(server):
        assert request.model_name == "m"
        flags = [request.parameters[f"sequence_{name}"].bool_param for name in ("start", "end")]
        by_id.setdefault(request.parameters["sequence_id"].int64_param, []).append((flags[0], flags[1]))
    whole = [(True, False), (False, False), (False, False), (False, False), (False, True)]
    assert min(by_id) == 100
    for flags_of in by_id.values():
        assert flags_of == whole[: len(flags_of)]
    assert sum(flags_of == whole for flags_of in by_id.values()) >= 3


async def test_an_interrupt_reports_what_was_measured() -> None:
    stop = asyncio.Event()
    plan = Plan(window_s=30.0, warmup_s=0.01)
    asyncio.get_running_loop().call_later(0.3, stop.set)
    level, _ = await measured(Concurrency(1), plan, stop=stop)
    assert level.interrupted
    assert level.requests > 0
    assert "interrupted" in level.reason


class TestSchedule:
    def test_constant_and_poisson(self) -> None:
        constant = schedule.gaps(100.0, "constant", 1)
        assert [next(constant) for _ in range(3)] == [0.01] * 3
        poisson = schedule.gaps(100.0, "poisson", 1)
        drawn = [next(poisson) for _ in range(4000)]
        assert sum(drawn) / len(drawn) == pytest.approx(0.01, rel=0.1)
        assert len(set(drawn)) == len(drawn)

    def test_intervals_in_microseconds(self, tmp_path: Path) -> None:
        path = tmp_path / "trace"
        path.write_text("1000\n\n2500\n")
        intervals = schedule.read_intervals(path)
        assert intervals == [0.001, 0.0025]
        again = schedule.repeated(intervals)
        assert [next(again) for _ in range(3)] == [0.001, 0.0025, 0.001]
        path.write_text("1000\nx\n")
        with pytest.raises(ValueError, match=r"trace:2: 'x' is no number"):
            schedule.read_intervals(path)
        path.write_text("0\n")
        with pytest.raises(ValueError, match="no intervals"):
            schedule.read_intervals(path)


class TestResults:
    def test_nearest_rank(self) -> None:
        ranked = [float(value) for value in range(1, 101)]
        assert [percentile(ranked, percent) for percent in (1, 50, 99, 99.9, 100)] == [1, 50, 99, 100, 100]

    def test_histogram_holds_everything(self) -> None:
        bins = histogram([0.001, 0.001, 0.002, 1.0])
        assert sum(count for _, count in bins) == 4
        assert all(a[0] < b[0] for a, b in pairwise(bins))
        assert bins[-1][0] == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("cost", "words"),
        [
            (ClientCost(0.95, 0.0, None, 0), "all that one process can"),
            (ClientCost(0.5, 0.45, None, 0), "that others used"),
            (ClientCost(0.1, 0.0, 0.02, 0), "20 ms late"),
        ],
    )
    def test_a_client_that_may_be_the_limit_says_so(self, cost: ClientCost, words: str) -> None:
        assert words in cost.limit

    def test_one_that_is_not_says_nothing(self) -> None:
        assert ClientCost(0.5, 0.1, 0.001, 0).limit == ""
