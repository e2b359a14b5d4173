"""Log files: whose is which, the last lines, following across rotation, and what went wrong."""

import threading
from pathlib import Path

import pytest

from tritonfleet.cli import logfiles

TRITON = """\
--- main-0.1 started 2026-11-24 02:03:27
I1124 02:03:27.100000 99 pinned_memory_manager.cc:277] "Pinned memory pool disabled"
E1124 02:03:27.100000 99 server.cc:241] "CudaDriverHelper has not been initialized."
I1124 02:03:27.200000 99 model_lifecycle.cc:472] "loading: broken:1"
E1124 02:03:27.300000 99 life.cc:654] "failed to load 'broken' version 1: Internal: ModuleNotFoundError
At:
  /models/broken/1/model.py(1): <module>
"
I1124 02:03:27.310000 99 model_lifecycle.cc:789] "failed to load 'broken'"
+--------+---------+
| Model  | Status  |
+--------+---------+
error: creating server: Internal - failed to load all models
"""


def test_whose_logs_there_are(tmp_path: Path) -> None:
    for name in (
        "controller.log",
        "router-0.log",
        "main-0.log",
        "main-1.log",
        "main-0.log.1",
        "text-x-0.log",
    ):
        (tmp_path / name).write_text("")
    assert logfiles.names(tmp_path) == ["controller", "main-0", "main-1", "router-0", "text-x-0"]

    def whose(target: str) -> list[str]:
        return [path.stem for path in logfiles.chosen(tmp_path, target)]

    assert whose("main-0") == ["main-0"]
    assert whose("main") == ["main-0", "main-1"]
    assert whose("router") == ["router-0"]
    assert whose("controller") == ["controller"]
    assert whose("text") == []
    assert whose("nobody") == []
    assert len(whose("")) == 5
    assert logfiles.names(tmp_path / "absent") == []


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert logfiles.last_lines(log, 3) == []
    log.write_text("a\nb\nc\nhalf")
    assert logfiles.last_lines(log, 2) == ["c", "half"]
    assert logfiles.last_lines(log, 0) == []
    assert logfiles.last_lines(log, None) == ["a", "b", "c", "half"]
    log.write_bytes(b"\xff\xfe bad\n")
    assert logfiles.last_lines(log, 1) == ["\ufffd\ufffd bad"]


def test_the_last_lines_go_back_into_rotated_files(tmp_path: Path) -> None:
    (tmp_path / "x.log.2").write_text("1\n2\n")
    (tmp_path / "x.log.1").write_text("3\n4\n")
    (tmp_path / "x.log").write_text("5\n")
    log = tmp_path / "x.log"
    assert logfiles.last_lines(log, 1) == ["5"]
    assert logfiles.last_lines(log, 2) == ["4", "5"]
    assert logfiles.last_lines(log, 9) == logfiles.last_lines(log, None) == ["1", "2", "3", "4", "5"]


def test_a_huge_log_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "TAIL_BYTES", 100)
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    lines = logfiles.last_lines(log, None)
    assert lines[-1] == "line 999"
    assert 5 < len(lines) < 15
    assert all(line.startswith("line ") for line in lines)


def test_what_went_wrong_is_triton_s_errors_with_their_continuation() -> None:
    assert logfiles.what_went_wrong(TRITON.splitlines()) == (
        "E1124 02:03:27.300000 99 life.cc:654] "
        "\"failed to load 'broken' version 1: Internal: ModuleNotFoundError",
        "At:",
        "  /models/broken/1/model.py(1): <module>",
        "error: creating server: Internal - failed to load all models",
    )


def test_triton_s_escaped_line_ends_become_lines_without_the_importer_s_frames() -> None:
    line = (
        r"""E1124 02:53:11.558239 9 life.cc:642] "failed to load: No module named 'x'\n\nAt:"""
        r"""\n  /models/broken/1/model.py(1): <module>\n  <frozen importlib._bootstrap>(241): _call\n"""
        '"'
    )
    assert logfiles.what_went_wrong([line]) == (
        "E1124 02:53:11.558239 9 life.cc:642] \"failed to load: No module named 'x'",
        "At:",
        "  /models/broken/1/model.py(1): <module>",
    )


def test_repeats_of_an_error_are_shown_once_the_newest() -> None:
    again = TRITON.replace("02:03:27.3", "02:05:00.3")
    words = logfiles.what_went_wrong((TRITON + again).splitlines())
    assert words[0].startswith("E1124 02:05:00")
    assert len(words) == 4


def test_triton_s_list_of_options_is_no_part_of_an_excerpt() -> None:
    said = [
        "I1129 06:39:54.1 1 x.cc:1] options",
        "+---+---+",
        "| server_id | triton |",
        "I1129 06:40:00.0 1 end",
    ]
    assert logfiles.what_went_wrong(said) == (said[0], said[-1])


def test_our_own_errors_are_shown_once_too() -> None:
    said = [f"2026-11-29 06:27:4{second},241 ERROR the certificate files do not fit" for second in range(3)]
    assert logfiles.what_went_wrong(said) == (said[-1],)


def test_a_log_without_errors_shows_its_end() -> None:
    assert logfiles.what_went_wrong(["a", "", "b"]) == ("a", "b")
    assert logfiles.what_went_wrong([]) == ()
    assert logfiles.what_went_wrong([str(n) for n in range(50)]) == tuple(str(n) for n in range(30, 50))
    assert logfiles.what_went_wrong(["error: " + "x" * 1000])[0].endswith("x …")


def test_following_goes_on_across_truncation_and_late_files(tmp_path: Path) -> None:
    first, second = tmp_path / "main-0.log", tmp_path / "main-1.log"
    first.write_text("old\nlast\n")
    stream = logfiles.follow([first, second], 1)
    assert next(stream) == ("main-0", "last")
    with first.open("a") as log:
        log.write("new\nha")
    assert next(stream) == ("main-0", "new")

    def later() -> None:
        with first.open("a") as log:
            log.write("lf\n")

    timer = threading.Timer(0.3, later)
    timer.start()
    assert next(stream) == ("main-0", "half")
    timer.join()
    second.write_text("born\n")
    assert next(stream) == ("main-1", "born")
    first.write_text("fresh\n")  # rotated: shorter than what was read
    assert next(stream) == ("main-0", "fresh")
