"""The test run itself: what must share a fleet runs in one worker."""

import pytest


@pytest.mark.xdist_group("held_together")
def test_xdist_groups_are_kept(request: pytest.FixtureRequest) -> None:
    """xdist puts the group into the test's id. With a pytest that keeps ids elsewhere (9.2 and xdist 3.8) it
    does so without effect: every worker then starts the fleets of every module."""
    if not hasattr(request.config, "workerinput") or not request.config.getoption("loadgroup"):
        pytest.skip("this is no run with xdist and `--dist loadgroup`")
    assert request.node.nodeid.endswith("@held_together")
