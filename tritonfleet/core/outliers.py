"""When a replica that answers fast and wrongly is replaced: its health probes pass, its answers are bad.

The routers leave such a replica out after five bad answers in a row and try it again half a minute later
(`core.ejection`). One that fails that trial is broken, unless the others answer as badly: then it is the
requests, or the model.
"""

from collections.abc import Collection
from dataclasses import dataclass

EJECTIONS = 2  # the second one is a trial that failed
LEAST_ANSWERS = 10  # of the others, to compare with
TOLERATED_SHARE = 0.1  # of bad ones among them


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one launch, over all router workers: since they know it, or since some moment. ``bad`` are those
    with a status that only a broken server gives; ``why``: the routers' reason for the last ejection."""

    ejections: int = 0
    bad: int = 0
    finished: int = 0
    why: str = ""

    def since(self, before: "Answers") -> "Answers":
        """What came after; a worker that was started again counts from zero."""
        return Answers(
            max(0, self.ejections - before.ejections),
            max(0, self.bad - before.bad),
            max(0, self.finished - before.finished),
            self.why,
        )


def is_broken(suspect: Answers, others: Collection[Answers]) -> str:
    """Why the replica is to be replaced, or "". ``others``: the ready replicas of its pool, since the suspect
    was left out for the first time."""
    if suspect.ejections < EJECTIONS or any(one.ejections for one in others):
        return ""
    finished, bad = sum(one.finished for one in others), sum(one.bad for one in others)
    if finished < LEAST_ANSWERS or bad > TOLERATED_SHARE * finished:
        return ""
    return (
        f"the routers left it out {suspect.ejections} times ({suspect.why or 'bad answers'}), "
        f"while the others answered {finished - bad} of {finished} calls well"
    )
