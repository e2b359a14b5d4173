"""Interpolation, and what YAML itself can get wrong."""

from itertools import pairwise

import pytest
from fleet_files import POOL, SMALLEST, Folder
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.config.source import read


def value(written: str, **environ: str) -> object:
    source = read(f"key: {written}\n", "fleet.yaml", environ)
    assert not source.problems
    return source.value["key"]


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a-${A}-${B}", {"A": "x", "B": "y"}, "a-x-y"),
        ("${A:-y}", {}, "y"),
        ("${A:-y}", {"A": ""}, "y"),
        ("${A:-y}", {"A": "x"}, "x"),
        ("${A:-}", {}, None),
        ("${A:-/a:b-c}", {}, "/a:b-c"),
        ("${A:?say it}", {"A": "x"}, "x"),
        ("${A}", {"A": ""}, None),
        ("$$", {}, "$"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A", {"A": "x"}, "$A"),
        ("${A}", {"A": "4"}, 4),
        ("${A}", {"A": "true"}, True),
        ("'${A}'", {"A": "4"}, "4"),
        ('"${A}"', {"A": "true"}, "true"),
        ("${A}", {"A": "[1, 2]"}, "[1, 2]"),
        ("${A}", {"A": "${B}", "B": "x"}, "${B}"),
    ],
)
def test_variables(written: str, environ: dict[str, str], expected: object) -> None:
    assert value(written, **environ) == expected


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        ("${A}", "$A is not set", "set it, or give a default: ${A:-value}"),
        ("${A:?say it}", "$A is not set: say it", ""),
        ("${A:?}", "$A is not set", ""),
        ("${}", "${} is not a variable", "write ${NAME} or ${NAME:-default}"),
        ("${A-b}", "${A-b} is not a variable", "write ${NAME} or ${NAME:-default}"),
        ("${A", "${A is not closed", "write ${NAME}, or $$ for a plain $"),
        ("${1A}", "${1A} is not a variable", "write ${NAME} or ${NAME:-default}"),
    ],
)
def test_variables_that_fail(written: str, message: str, hint: str) -> None:
    (problem,) = read(f"key: {written}\n", "fleet.yaml", {}).problems
    assert (problem.message, problem.hint, problem.path) == (message, hint, "key")
    assert (problem.line, problem.column) == (1, 6)


def test_every_unset_variable_is_told() -> None:
    source = read("a: ${A}\nb: [x, '${B}-${C}']\n", "fleet.yaml", {})
    assert [(p.path, p.line, p.column) for p in source.problems] == [
        ("a", 1, 4),
        ("b[1]", 2, 8),
        ("b[1]", 2, 8),
    ]


def test_aliases_of_aliases_end() -> None:
    """Each line stands for ten of the line before: 10^7 values in 200 bytes."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in pairwise("abcdefg")]
    (problem,) = read("\n".join(lines), "fleet.yaml", {}).problems
    assert problem.message == "not a fleet file: nested too deeply, or endless aliases"


def test_variables_in_keys_are_left_alone() -> None:
    assert read("${A}: 1\n", "fleet.yaml", {"A": "x"}).value == {"${A}": 1}


@given(st.text(alphabet="${}A:-?x", max_size=12))
def test_dollars_never_crash_the_reader(text: str) -> None:
    source = read(f"key: '{text}'\n", "fleet.yaml", {"A": "v"})
    assert source.problems or isinstance(source.value["key"], str)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    source = read(text, "fleet.yaml", {})
    for problem in source.problems:
        assert problem.line >= 1
        assert problem.column >= 1


def test_an_anchor_is_used_again(folder: Folder) -> None:
    spec = folder.load(
        "version: 1\nname: demo\npools:\n"
        "  one: &same {model_repository: models, replicas: {max: 2}}\n"
        "  two: *same\n"
    )
    assert spec.pools["one"] == spec.pools["two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "version: 1\nname: [demo\n",
            "DIR/fleet.yaml:2:7: not YAML: while parsing a flow sequence expected ',' or ']', "
            "but got '<stream end>'\n   2 | name: [demo\n     |       ^\n"
            "  hint: the bracket in line 2 is not closed, or a comma is missing",
        ),
        (
            "version: 1\ndevices: {cpu: 4\nname: demo\n",
            "DIR/fleet.yaml:3:5: not YAML: while parsing a flow mapping expected ',' or '}', but got ':'\n"
            "   3 | name: demo\n     |     ^\n"
            "  hint: the bracket in line 2 is not closed, or a comma is missing",
        ),
        (
            'version: 1\nname: "demo\n',
            "DIR/fleet.yaml:2:7: not YAML: while scanning a quoted scalar found unexpected end of stream\n"
            '   2 | name: "demo\n     |       ^\n  hint: the quote is not closed',
        ),
        (
            "version:1\nname: demo\n",
            "DIR/fleet.yaml:2:5: not YAML: mapping values are not allowed here\n   2 | name: demo\n"
            "     |     ^\n  hint: a key's colon is followed by a space; a value that holds a colon and a "
            "space needs quotes",
        ),
        (
            "version: 1\npools:\n    main:\n        models: [echo]\n      triton: {}\n",
            "DIR/fleet.yaml:5:7: not YAML: while parsing a block mapping expected <block end>, but found "
            "'<block mapping start>'\n   5 |       triton: {}\n     |       ^\n"
            "  hint: this line is not indented like the lines it belongs to",
        ),
        (
            POOL + "    models: [*]\n",
            "DIR/fleet.yaml:6:15: not YAML: while scanning an alias expected alphabetic or numeric character"
            ", but found ']'\n   6 |     models: [*]\n     |               ^\n"
            '  hint: quote it: "*"',
        ),
        (
            "name: @demo\n",
            "DIR/fleet.yaml:1:7: not YAML: while scanning for the next token found character '@' that cannot "
            "start any token\n   1 | name: @demo\n     |       ^\n"
            "  hint: a value that begins with this character needs quotes",
        ),
        (
            "x: " + "[" * 1500 + "]" * 1500,
            "DIR/fleet.yaml:1:1: not a fleet file: nested too deeply\n"
            f"   1 | x: {'[' * 1500}{']' * 1500}\n     | ^",
        ),
        (
            SMALLEST + "logs: {keep: '\\0'}\n".replace("'", '"'),
            "DIR/fleet.yaml:4:14: logs.keep: holds a NUL character, which no path, argument or variable can\n"
            '   4 | logs: {keep: "\\0"}\n     |              ^',
        ),
        (
            "version: 1\n\tname: demo\n",
            "DIR/fleet.yaml:2:1: not YAML: while scanning for the next token found character '\\t' that "
            "cannot start any token\n   2 |  name: demo\n     | ^\n  hint: indent with spaces, not tabs",
        ),
        (
            "version: 1\nname: de\x07mo\n",
            "DIR/fleet.yaml:2:9: not YAML: character 0x07 cannot stand in a file\n"
            "   2 | name: de\x07mo\n     |         ^",
        ),
        (
            SMALLEST + "router: &r {listen: *r}\n",
            "DIR/fleet.yaml:4:9: router.listen: this anchor holds an alias of itself\n"
            "   4 | router: &r {listen: *r}\n     |         ^",
        ),
        (
            SMALLEST + "version: 1\n",
            "DIR/fleet.yaml:4:1: version: this key stands here twice, first in line 1\n"
            "   4 | version: 1\n     | ^",
        ),
        (
            SMALLEST + "? [a]\n: 1\n",
            "DIR/fleet.yaml:4:3: a key must be a word\n   4 | ? [a]\n     |   ^",
        ),
        (
            SMALLEST + "logs: {keep: !!int x}\n",
            "DIR/fleet.yaml:4:14: logs.keep: cannot be read: invalid literal for int() with base 10: 'x'\n"
            "   4 | logs: {keep: !!int x}\n     |              ^",
        ),
        (
            SMALLEST + "logs: {keep: !mine 3}\n",
            "DIR/fleet.yaml:4:14: logs.keep: cannot be read: could not determine a constructor for the tag "
            "'!mine'\n   4 | logs: {keep: !mine 3}\n     |              ^",
        ),
        (
            SMALLEST + "router:\n  <<: {workers: 2}\n",
            "DIR/fleet.yaml:5:3: router: merge keys (<<) are not supported\n"
            "   5 |   <<: {workers: 2}\n     |   ^\n  hint: repeat the keys",
        ),
    ],
    ids=[
        *(
            "unclosed",
            "unclosed mapping",
            "unclosed quote",
            "no space",
            "dedent",
            "star",
            "at",
            "deep",
            "nul",
        ),
        *("tab", "control", "recursive", "twice", "complex key", "bad int", "tag", "merge"),
    ],
)
def test_what_yaml_gets_wrong(folder: Folder, text: str, expected: str) -> None:
    assert folder.says(text) == expected
