"""Several workers learn what one learns, though each sees a part of the answers only."""

import random
from pathlib import Path

import pytest

from tritonfleet.core.cost import Attribution, CostModel, Share
from tritonfleet.router.finishes import SIZE, Finishes

PER_BYTE_S = 10e-6


TOOK_S, SHARES = (0.002, 0.02, 0.1), (0.6, 0.3, 0.1)


def learned(workers: int, finishes: Finishes | None) -> list[float]:
    """What one of ``workers`` learns of requests of 200 B, 2 kB and 10 kB, times what they take, where one
    FIFO replica is 0.85 loaded, by each worker as much."""
    draw = random.Random(4)
    attributions = [
        finishes.attribution("m-0.1", "m") if finishes is not None else Attribution() for _ in range(workers)
    ]
    models = [CostModel() for _ in range(workers)]
    rate = 0.85 / sum(took * share for took, share in zip(TOOK_S, SHARES, strict=True))
    now = free = 0.0
    for took in draw.choices(TOOK_S, SHARES, k=4000):
        now += draw.expovariate(rate)
        free = max(free, now) + took
        worker = draw.randrange(workers)
        for size, seconds in attributions[worker].finished(round(took / PER_BYTE_S), now, free):
            models[worker].learn(size, seconds)
    return [models[0].estimate(size) / (size * PER_BYTE_S) for size in (200, 2000, 10_000)]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_workers_that_share_learn_what_requests_take(tmp_path: Path, workers: int) -> None:
    found = learned(workers, Finishes(tmp_path / "x"))
    assert found == pytest.approx([1.0, 1.0, 1.0], rel=0.1)


def test_workers_that_do_not_take_waiting_for_work() -> None:
    """What the file is for: short requests are learned as several times as long."""
    assert learned(2, None)[0] > 3.0
    assert learned(1, None) == pytest.approx([1.0, 1.0, 1.0], rel=0.1)


class TestTwoWorkers:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Attribution, Attribution]:
        one, two = (Finishes(tmp_path / "x").attribution("m-0.1", "m") for _ in range(2))
        return one, two

    def test_a_request_begins_when_the_others_is_done(self, pair: tuple[Attribution, Attribution]) -> None:
        one, two = pair
        one.finished(1, 100.0, 107.0)
        two.finished(2, 101.0, 110.0)
        assert two.settle() == [Share(2, 3.0)]

    def test_answers_of_one_batch_do_not_follow_each_other(
        self, pair: tuple[Attribution, Attribution]
    ) -> None:
        one, two = pair
        one.finished(1, 90.0, 100.0)
        one.finished(1, 101.0, 110.0)
        two.finished(2, 101.0, 110.0001)
        assert two.settle() == [Share(2, pytest.approx(9.0, abs=1e-3))]

    def test_another_model_and_another_replica_are_nothing_to_it(self, tmp_path: Path) -> None:
        finishes = Finishes(tmp_path / "x")
        for instance, model in (("m-0.1", "other"), ("m-0.2", "m")):
            finishes.attribution(instance, model).finished(1, 100.0, 109.0)
        own = finishes.attribution("m-0.1", "m")
        own.finished(2, 101.0, 110.0)
        assert own.settle() == [Share(2, 9.0)]

    def test_times_of_before_a_restart_of_the_host_are_forgotten(
        self, pair: tuple[Attribution, Attribution]
    ) -> None:
        one, _ = pair
        one.finished(1, 90_000.0, 90_001.0)
        one.finished(1, 90_001.0, 90_002.0)
        fresh = pair[1]  # by a clock that began anew
        for end in (11.0, 12.0, 13.0):
            fresh.finished(1, end - 0.5, end)
        assert fresh.settle() == [Share(1, 0.5)]


def test_the_file_takes_the_room_of_what_is_used(tmp_path: Path) -> None:
    Finishes(tmp_path / "x").attribution("m-0.1", "m").finished(1, 0.0, 1.0)
    found = (tmp_path / "x").stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 < SIZE / 16
    with pytest.raises(OSError, match="No such file"):
        Finishes(tmp_path / "no" / "folder")
