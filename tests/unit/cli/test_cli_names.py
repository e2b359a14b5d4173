"""What a person typed: sizes, durations, names that miss, options behind the command."""

import pytest
from fleet_samples import busy_snapshot, snapshot
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.names import parse_duration, parse_sizes, pool_named, replica_named
from tritonfleet.cli.options import hoist


def test_replicas_are_found_by_slot_and_by_instance() -> None:
    fleet = busy_snapshot()
    assert replica_named(fleet, "image-0") is replica_named(fleet, "image-0.5")


def test_an_unknown_replica_gets_a_did_you_mean() -> None:
    with pytest.raises(CliError) as caught:
        replica_named(snapshot(), "mian-0")
    assert caught.value.code is ExitCode.USAGE
    assert str(caught.value) == "no replica 'mian-0' in fleet 'demo'"
    assert caught.value.hint == "did you mean 'main-0'? There are: main-0, main-1"


def test_an_unknown_name_like_nothing_gets_the_list() -> None:
    with pytest.raises(CliError) as caught:
        replica_named(snapshot(), "zzz")
    assert caught.value.hint == "there are: main-0, main-1"
    with pytest.raises(CliError) as caught:
        pool_named(snapshot(pools=()), "main")
    assert "none now" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "pools", "sizes"),
    [
        (["3"], None, {"": 3}),
        (["3"], ["main"], {"main": 3}),
        (["text=3", "image=0"], ["text", "image"], {"text": 3, "image": 0}),
    ],
)
def test_sizes(words: list[str], pools: list[str] | None, sizes: dict[str, int]) -> None:
    assert parse_sizes(words, pools) == sizes


@pytest.mark.parametrize(
    ("words", "pools", "message", "hint"),
    [
        (["three"], None, "'three' is not a number of replicas", "a whole number"),
        (["-1"], None, "'-1' is not a number of replicas", "0 or more"),
        (["main=2.5"], None, "'2.5' is not a number of replicas", "a whole number"),
        (["main="], None, "'' is not a number of replicas", "POOL=3"),
        (["=2"], None, "'=2' names no pool", "POOL=N"),
        (["2"], ["text", "image"], "the fleet has 2 pools, so '2' must say which", "text=2, image=2"),
        (["main=2", "main=3"], None, "pool 'main' is given two sizes", "once"),
        (["2", "3"], None, "the pool is given two sizes", "once"),
        (["٣"], None, "'٣' is not a number of replicas", "a whole number"),
    ],
)
def test_wrong_sizes(words: list[str], pools: list[str] | None, message: str, hint: str) -> None:
    with pytest.raises(CliError) as caught:
        parse_sizes(words, pools)
    assert caught.value.code is ExitCode.USAGE
    assert str(caught.value) == message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("250ms", 0.25), ("1.5m", 90), ("2h", 7200), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--since") == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 m", "-5s", "5x", "1e3"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(CliError, match=r"--deadline: '.*' is not a duration") as caught:
        parse_duration(text, "--deadline")
    assert "250ms, 30s, 10m, 2h" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("ps", "ps"),
        ("ps -o json", "-o json ps"),
        ("ps --json -q", "--json -q ps"),
        ("ps -ojson", "-ojson ps"),
        ("ps --output=json", "--output=json ps"),
        ("-f a.yaml ps --json", "-f a.yaml --json ps"),
        ("up -d -f a.yaml --wait", "-f a.yaml up -d --wait"),
        ("up --file=a.yaml -y", "--file=a.yaml up -y"),
        ("logs -f main-0", "logs -f main-0"),
        ("logs --file a.yaml -f", "--file a.yaml logs -f"),
        ("events -f -o json", "-o json events -f"),
        ("-f logs ps", "-f logs ps"),
        ("scale 3 --no-input -- -o", "--no-input scale 3 -- -o"),
        ("scale -o", "scale -o"),
        ("--help", "--help"),
        ("-- ps -q", "-- ps -q"),
        ("", ""),
    ],
)
def test_global_options_may_follow_the_command(typed: str, parsed: str) -> None:
    assert hoist(typed.split()) == parsed.split()


@given(st.lists(st.sampled_from(["ps", "logs", "-f", "-o", "json", "--json", "--", "x", "-q", "--file=a"])))
def test_no_word_is_lost_or_invented(words: list[str]) -> None:
    assert sorted(hoist(words)) == sorted(words)
    assert hoist(hoist(words)) == hoist(words)
