"""Log files: their last lines, following them, rotating them, and Triton's reasons in them."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tritonfleet.drivers import logs

BOUND_S = 30.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "main-0.log"


async def lines_of(path: Path, tail: int | None = None) -> list[str]:
    return [line async for line in logs.read(path, tail=tail, follow=False)]


async def following(lines: AsyncIterator[str], count: int) -> list[str]:
    async with asyncio.timeout(BOUND_S):
        return [await anext(lines) for _ in range(count)]


class TestReading:
    async def test_the_last_lines_reach_back_into_rotated_files(self, log: Path) -> None:
        log.with_name("main-0.log.10").write_text("1\n")
        log.with_name("main-0.log.2").write_text("2\n3\n")
        log.with_name("main-0.log.1").write_text("4 a")
        log.with_name("main-0.log.new").write_text("a copy that is not whole\n")
        log.write_text(" line cut in two\n5\n")
        assert await lines_of(log) == ["1", "2", "3", "4 a line cut in two", "5"]
        assert await lines_of(log, 3) == ["3", "4 a line cut in two", "5"]
        assert await lines_of(log, 0) == []
        assert await lines_of(log, 9) == await lines_of(log)

    async def test_lines_longer_than_a_chunk_and_across_chunks(
        self, log: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "CHUNK", 4)
        written = [f"{number} {'ü' * number}" for number in range(20)]
        log.write_text("".join(f"{line}\n" for line in written))
        for tail in range(21):
            assert await lines_of(log, tail) == (written[-tail:] if tail else [])

    async def test_a_line_without_an_end_and_bytes_that_are_no_text(self, log: Path) -> None:
        log.write_bytes(b"caf\xe9\nunfinished")
        assert await lines_of(log) == ["caf�", "unfinished"]

    async def test_nothing_is_there(self, log: Path) -> None:
        assert await lines_of(log) == []


class TestFollowing:
    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "FOLLOW_INTERVAL_S", 0.01)

    async def test_a_line_is_shown_when_it_is_whole(self, log: Path) -> None:
        log.write_text("first\nsec")
        lines = logs.read(log, tail=10, follow=True)
        assert await following(lines, 1) == ["first"]
        with log.open("a") as writer:
            writer.write("ond\nthird\n")
        assert await following(lines, 2) == ["second", "third"]

    async def test_a_log_that_appears_later(self, log: Path) -> None:
        lines = logs.read(log, tail=10, follow=True)
        first = asyncio.create_task(following(lines, 1))
        await asyncio.sleep(0.03)
        log.write_text("here\n")
        assert await first == ["here"]

    async def test_rotation_loses_nothing_that_a_copy_keeps(self, log: Path) -> None:
        log.write_text("before, and longer than what comes after it\n")
        lines = logs.read(log, tail=10, follow=True)
        assert await following(lines, 1) == ["before, and longer than what comes after it"]
        with log.open("a") as writer:
            writer.write("just before, and cut ")
            writer.flush()
            assert logs.rotate(log, 1, keep=1)
            writer.write("in two\nx\n")
        assert await following(lines, 2) == ["just before, and cut in two", "x"]

    async def test_truncation_without_a_copy_goes_on_at_the_new_start(self, log: Path) -> None:
        log.write_text("before, which is longer\n")
        lines = logs.read(log, tail=10, follow=True)
        assert await following(lines, 1) == ["before, which is longer"]
        assert logs.rotate(log, 1, keep=0)
        log.write_text("after\n")
        assert await following(lines, 1) == ["after"]


class TestRotation:
    def test_below_its_size_nothing_happens(self, log: Path) -> None:
        assert not logs.rotate(log, 10, keep=3)
        log.write_text("x" * 9)
        assert not logs.rotate(log, 10, keep=3)
        assert os.listdir(log.parent) == ["main-0.log"]  # noqa: PTH208 # names are what is asked for

    def test_the_oldest_goes_when_there_are_enough(self, log: Path) -> None:
        for number in range(5):
            log.write_text(f"{number} {'x' * 10}")
            assert logs.rotate(log, 10, keep=2)
        rotated = {path.name: path.read_text()[0] for path in log.parent.iterdir() if path != log}
        assert rotated == {"main-0.log.1": "4", "main-0.log.2": "3"}
        assert log.read_text() == ""

    def test_keep_that_became_smaller_removes_the_rest(self, log: Path) -> None:
        for number in range(1, 5):
            log.with_name(f"main-0.log.{number}").write_text(str(number))
        log.write_text("0")
        assert logs.rotate(log, 1, keep=2)
        rotated = {path.name: path.read_text() for path in log.parent.iterdir() if path != log}
        assert rotated == {"main-0.log.1": "0", "main-0.log.2": "1"}

    def test_keep_0_keeps_nothing(self, log: Path) -> None:
        log.write_text("x" * 10)
        assert logs.rotate(log, 10, keep=0)
        assert [path.name for path in log.parent.iterdir()] == ["main-0.log"]
        assert log.stat().st_size == 0

    def test_a_writer_that_has_it_open_goes_on_in_it(self, log: Path) -> None:
        with log.open("ab", buffering=0) as writer:
            writer.write(b"before\n")
            assert logs.rotate(log, 1, keep=1)
            writer.write(b"after\n")
        assert log.read_bytes() == b"after\n"
        assert log.with_name("main-0.log.1").read_bytes() == b"before\n"

    def test_larger_than_a_chunk(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "CHUNK", 7)
        content = os.urandom(100)
        log.write_bytes(content)
        assert logs.rotate(log, 1, keep=1)
        assert log.with_name("main-0.log.1").read_bytes() == content


# What Triton 2.51 writes, cut to what matters; a model whose initialize raises an error of two lines.
FAILED_MODEL = """\
E1124 02:54:49.123456 11950 server.cc:241] "CudaDriverHelper has not been initialized."
E1124 02:54:52.596000 11950 model_lifecycle.cc:654] "failed to load 'bad' version 1: Internal: RuntimeError: \
weights.npz is
not there

At:
  /models/bad/1/model.py(3): initialize
"
I1124 02:54:52.596500 11950 server.cc:674]
+-------+---------+-----------------------------------------------------+
| Model | Version | Status                                              |
+-------+---------+-----------------------------------------------------+
| bad   | 1       | UNAVAILABLE: Internal: RuntimeError: weights.npz is |
|       |         | not there                                           |
|       |         |                                                     |
|       |         | At:                                                 |
|       |         |   /models/bad/1/model.py(3): initialize             |
| ok    | 1       | READY                                               |
| worse | 2       | UNAVAILABLE: Invalid argument: no backend           |
+-------+---------+-----------------------------------------------------+

error: creating server: Invalid argument - load failed for model 'bad': version 1 is at UNAVAILABLE state: \
Internal: RuntimeError: weights.npz is
not there
"""
NO_SUCH_MODEL = """\
E1124 02:54:17.700000 10001 server.cc:241] "CudaDriverHelper has not been initialized."
E1124 02:54:17.702345 10001 model_repository_manager.cc:614] "failed to poll model 'nosuch': model not found \
in any model repository."
I1124 02:54:17.703000 10001 server.cc:604]
+------------------+------+
| Repository Agent | Path |
+------------------+------+
+------------------+------+
error: creating server: Internal - failed to load all models
"""
PORT_TAKEN = """\
E1124 02:54:49.970217191   11747 chttp2_server.cc:1060]                UNKNOWN:No address added out of total 1
E1124 02:54:49.973644 11747 main.cc:245] "failed to start GRPC service: Unavailable - Socket \
'127.0.0.1:29999' already in use "
"""
HUNG_STUB = """\
E1124 02:42:33.321707 22590 server.cc:241] "CudaDriverHelper has not been initialized."
I1124 02:42:33.322715 22590 model_lifecycle.cc:472] "loading: missing:1"
I1124 02:42:33.334418 22598 pb_stub.cc:2105]  Failed to preinitialize Python stub: Python model file not \
found in '/models/missing/1/model.py'
"""
BAD_OPTION = """\
/opt/tritonserver/bin/tritonserver: unrecognized option '--nope=3'
Usage: tritonserver [options]
  --help
	Print usage
"""
NOTHING_SAID = 'E1124 02:42:33.321707 22590 server.cc:241] "CudaDriverHelper has not been initialized."\n'


class TestErrorDetail:
    @pytest.mark.parametrize(
        ("said", "detail"),
        [
            (
                FAILED_MODEL,
                "model bad: Internal: RuntimeError: weights.npz is not there; "
                "model worse: Invalid argument: no backend",
            ),
            (NO_SUCH_MODEL, "failed to poll model 'nosuch': model not found in any model repository."),
            (HUNG_STUB, "Python model file not found in '/models/missing/1/model.py'"),
            (BAD_OPTION, "unrecognized option '--nope=3'"),
            ("error: creating server: no repository\n", "creating server: no repository"),
            (NOTHING_SAID, ""),
            ("", ""),
        ],
    )
    def test_what_triton_said(self, log: Path, said: str, detail: str) -> None:
        log.write_text(f"{logs.header('main-0.1', 'now')}\n{said}")
        assert logs.error_detail(log, "main-0.1") == detail

    def test_a_taken_port_is_among_it(self, log: Path) -> None:
        log.write_text(f"{logs.header('main-0.1', 'now')}\n{PORT_TAKEN}")
        assert logs.error_detail(log, "main-0.1").endswith("Socket '127.0.0.1:29999' already in use ")

    def test_only_the_instance_s_own_part_counts(self, log: Path) -> None:
        parts = {"main-0.1": NO_SUCH_MODEL, "main-0.11": BAD_OPTION, "main-0.12": NOTHING_SAID}
        log.write_text("".join(f"{logs.header(name, 'now')}\n{said}" for name, said in parts.items()))
        assert "nosuch" in logs.error_detail(log, "main-0.1")
        assert logs.error_detail(log, "main-0.11") == "unrecognized option '--nope=3'"
        assert logs.error_detail(log, "main-0.12") == ""

    def test_a_part_whose_beginning_was_rotated_away(self, log: Path) -> None:
        log.write_text(f"{BAD_OPTION}{logs.header('main-0.2', 'now')}\n{NO_SUCH_MODEL}")
        assert logs.error_detail(log, "main-0.1") == "unrecognized option '--nope=3'"

    def test_it_is_cut_to_a_length_that_a_person_reads(self, log: Path) -> None:
        log.write_text(f"error: {'x' * 2000}\n")
        assert len(logs.error_detail(log, "main-0.1")) == logs.DETAIL_LIMIT

    def test_without_a_log_there_is_none(self, log: Path) -> None:
        assert logs.error_detail(log, "main-0.1") == ""


def test_a_line_of_ours_begins_anew_where_a_server_was_killed_within_one(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "main-0.log"
    logs.append_line(path, "first")
    with path.open("a") as log:
        log.write("I1125 killed in the mid")
    logs.append_line(path, logs.header("main-0.2", "now"))
    assert path.read_text().splitlines() == ["first", "I1125 killed in the mid", "--- main-0.2 started now"]
