"""Images that are on their way: what the journal and the replicas that wait for one say of it."""

from collections.abc import Iterable
from dataclasses import replace

from tritonfleet.controller.journal import Journal
from tritonfleet.core.image_pull import ImagePull, summary
from tritonfleet.core.model import Replica, ReplicaState


class PullNotes:
    """Notes in the journal when a pull begins and how it ended."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._begun: dict[str, float] = {}  # by image: when its last pull began
        self._ended: dict[str, float] = {}

    def look(self, pulls: Iterable[ImagePull]) -> None:
        for pull in pulls:
            if self._begun.get(pull.image) != pull.began_at:
                self._begun[pull.image] = pull.began_at
                self._journal.add("image.pulling", pull.image, "it is not on the Docker host")
            if pull.ended_at is not None and self._ended.get(pull.image) != pull.ended_at:
                self._ended[pull.image] = pull.ended_at
                if pull.error:
                    self._journal.add("image.failed", pull.image, pull.error)
                else:
                    took = f"in {pull.ended_at - pull.began_at:.0f} s"
                    self._journal.add("image.pulled", pull.image, f"{took}: {summary(pull)}")


def waiting(replica: Replica, image: str, pulls: Iterable[ImagePull]) -> Replica:
    """The replica with the progress of its image as its reason, while that is pulled."""
    for pull in pulls:
        if replica.state is ReplicaState.STARTING and pull.image == image and pull.ended_at is None:
            return replace(replica, reason=f"pulling {image}: {summary(pull)}")
    return replica
