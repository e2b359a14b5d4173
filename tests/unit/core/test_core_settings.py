"""What clients set on the fleet: the last word about each thing, in an order that can be replayed."""

from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.settings import Setting, last_revision, left_for, put, without_endings


def said(kind: str, subject: str, revision: int, text: bytes = b"", **more: object) -> Setting:
    return Setting(kind, subject, f"/x/{kind}", text, revision, **more)  # type: ignore[arg-type]


def subjects(settings: tuple[Setting, ...]) -> list[tuple[str, str]]:
    return [(setting.kind, setting.subject) for setting in settings]


def test_only_the_last_word_is_kept() -> None:
    settings = put((), said("model", "digits", 1, b"unload"))
    settings = put(settings, said("model", "echo", 2, b"load"))
    settings = put(settings, said("model", "digits", 3, b"load"))
    assert [s.message for s in settings] == [b"load", b"load"]
    assert subjects(settings) == [("model", "echo"), ("model", "digits")]
    assert last_revision(settings) == 3


def test_an_ending_takes_the_place_of_its_region_and_one_without_a_name_of_all() -> None:
    settings = put((), said("system_shm", "a", 1))
    settings = put(settings, said("system_shm", "b", 2))
    settings = put(settings, said("cuda_shm", "c", 3))
    one = put(settings, said("system_shm", "a", 4, ending=True))
    assert subjects(without_endings(one)) == [("system_shm", "b"), ("cuda_shm", "c")]
    everything = put(settings, said("system_shm", "", 4, ending=True))
    assert subjects(without_endings(everything)) == [("cuda_shm", "c")]


def test_what_is_said_of_a_model_to_all_pools_ends_what_was_said_to_some() -> None:
    settings = put((), said("model", "digits", 1, b"load", pools=("small",)))
    settings = put(settings, said("model", "digits", 2, b"unload", pools=("large",)))
    assert len(settings) == 2
    settings = put(settings, said("model", "digits", 3, b"unload"))
    assert [s.revision for s in settings] == [3]


def test_models_come_first_for_other_settings_may_name_them() -> None:
    settings = (said("trace", "digits", 1), said("system_shm", "r", 2), said("model", "digits", 3))
    assert [s.kind for s in left_for(settings, "main", 0)] == ["model", "trace", "system_shm"]


def test_a_replica_gets_what_its_pool_got_and_only_what_it_has_not_had() -> None:
    settings = (said("model", "digits", 1, pools=("small",)), said("log", "", 2))
    assert subjects(left_for(settings, "small", 0)) == [("model", "digits"), ("log", "")]
    assert subjects(left_for(settings, "large", 0)) == [("log", "")]
    assert left_for(settings, "small", 2) == ()


def test_endings_are_for_replicas_that_are_half_way() -> None:
    settings = put((said("system_shm", "r", 1),), said("system_shm", "r", 2, ending=True))
    assert left_for(settings, "main", 0) == ()
    assert [s.ending for s in left_for(settings, "main", 1)] == [True]


def test_a_replica_may_serve_without_a_region_but_not_without_a_model() -> None:
    invalid, unavailable = 3, 14
    assert said("system_shm", "r", 1).dispensable(unavailable)
    assert said("cuda_shm", "r", 1).dispensable(invalid)
    assert said("trace", "digits", 1).dispensable(invalid)
    assert not said("trace", "digits", 1).dispensable(unavailable)
    assert not said("trace", "", 1).dispensable(invalid)
    assert not said("model", "digits", 1).dispensable(invalid)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["model", "system_shm", "trace"]), st.sampled_from(["", "a", "b"]), st.booleans()
    ),
    max_size=25,
)


@given(CHANGES, st.integers(0, 25))
def test_replaying_the_compacted_journal_gives_what_replaying_everything_gives(
    changes: list[tuple[str, str, bool]], seen: int
) -> None:
    """Regions only have endings; a replica that had the first ``seen`` changes and one that had none end up
    with what a replica has that was there all the time."""

    def happen(state: dict[tuple[str, str], bytes], setting: Setting) -> None:
        if not setting.ending:
            state[setting.kind, setting.subject] = setting.message
        elif setting.subject:
            state.pop((setting.kind, setting.subject), None)
        else:
            for key in [key for key in state if key[0] == setting.kind]:
                del state[key]

    journal: tuple[Setting, ...] = ()
    always: dict[tuple[str, str], bytes] = {}
    halfway: dict[tuple[str, str], bytes] = {}
    for revision, (kind, subject, ending) in enumerate(changes, 1):
        is_end = kind == "system_shm" and (ending or not subject)
        change = said(kind, subject, revision, b"%d" % revision, ending=is_end)
        journal = put(journal, change)
        happen(always, change)
        if revision <= seen:
            happen(halfway, change)
    fresh: dict[tuple[str, str], bytes] = {}
    for setting in left_for(journal, "main", 0):
        happen(fresh, setting)
    assert fresh == always
    if 0 < seen <= len(changes):
        for setting in left_for(journal, "main", seen):
            happen(halfway, setting)
        assert halfway == always
