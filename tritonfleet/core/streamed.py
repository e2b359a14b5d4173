"""The requests of one stream that are not answered in full: sent, less those whose final response was seen.

Triton marks every response of a stream as final or not. What it does not say: a decoupled model may end a
request with an empty final response, and Triton passes that on only if the request asked for it. The end of
one that did not ask may never be seen, so of these at most one per model counts, the last: until the next of
its kind, a final response, or the end of the stream. All others are counted to their final response.

An error about a request that was not executed names no model. It ends the oldest request of the stream, so
in a stream that mixes models a request may count for another one's model for a while; never too many in all.
"""

from collections import deque

MOST_OPEN = 10_000  # of one stream, and of one client, that are counted: they must not fill memory
MOST_MODELS = 8  # of one stream that are remembered with nothing open


class Asked:
    """One request. ``started`` is what the caller's clock says, ``cost_s`` the seconds it is expected to
    take; ``asks``: for an empty final response, so that its end is always seen."""

    __slots__ = ("asks", "cost_s", "model", "started", "turn")

    def __init__(self, model: str, started: float, cost_s: float, turn: int, *, asks: bool) -> None:
        self.model = model
        self.started = started
        self.cost_s = cost_s
        self.turn = turn
        self.asks = asks


class _Model:
    """``unsure``: the one whose end may never be seen."""

    __slots__ = ("sure", "unsure")

    def __init__(self) -> None:
        self.sure: deque[Asked] = deque()
        self.unsure: Asked | None = None


class OpenRequests:
    """Responses of one model are taken to end its requests in the order in which they were sent."""

    __slots__ = ("_models", "_turn", "count", "only_model")

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._turn = 0
        self.count = 0
        self.only_model = ""  # whose requests all are so far; "" if there are several models

    def sent(
        self, model: str, started: float, cost_s: float, *, asks: bool, decoupled: bool
    ) -> tuple[Asked | None, Asked | None]:
        """A request went out: what counts from now on, and what does not count any more."""
        found = self._models.get(model)
        if found is None:
            found = self._new(model)
        if self.count >= MOST_OPEN:
            return None, None
        self._turn += 1
        asked = Asked(model, started, cost_s, self._turn, asks=asks)
        if asks or not decoupled:
            found.sure.append(asked)
            self.count += 1
            return asked, None
        before, found.unsure = found.unsure, asked
        self.count += before is None
        return asked, before

    def ended(self, model: str) -> Asked | None:
        """A final response came, of ``model`` ("" if it does not say): which request it ends."""
        found = self._models.get(model)
        if found is None or not (found.sure or found.unsure):
            found = self._oldest()
            if found is None:
                return None
        self.count -= 1
        if found.sure:
            return found.sure.popleft()
        asked, found.unsure = found.unsure, None
        return asked

    def found_decoupled(self, model: str) -> list[Asked]:
        """A response came that is not the last one: those of the model that do not count any more."""
        found = self._models.get(model)
        if found is None:
            return []
        unsure = [asked for asked in found.sure if not asked.asks]
        if not unsure:
            return []
        found.sure = deque(asked for asked in found.sure if asked.asks)
        if found.unsure is not None:
            unsure.insert(0, found.unsure)
        found.unsure = unsure.pop()
        self.count -= len(unsure)
        return unsure

    @property
    def oldest(self) -> Asked | None:
        return min(self._heads(), key=lambda asked: asked.turn, default=None)

    def take_all(self) -> list[Asked]:
        """The stream has ended: all that was open."""
        found = [asked for one in self._models.values() for asked in (*one.sure, one.unsure) if asked]
        self._models.clear()
        self.count = 0
        return found

    def _heads(self) -> list[Asked]:
        """Of every model the oldest request."""
        heads = [one.sure[0] if one.sure else one.unsure for one in self._models.values()]
        return [asked for asked in heads if asked is not None]

    def _oldest(self) -> _Model | None:
        """Whose request ends if nothing else is known: rather one whose end must be seen."""
        sure = [asked for asked in self._heads() if self._models[asked.model].sure]
        first = min(sure or self._heads(), key=lambda asked: asked.turn, default=None)
        return self._models[first.model] if first is not None else None

    def _new(self, model: str) -> _Model:
        """Names come from clients: those with nothing open are forgotten."""
        if len(self._models) >= MOST_MODELS:
            self._models = {name: one for name, one in self._models.items() if one.sure or one.unsure}
        found = self._models[model] = _Model()
        self.only_model = model if len(self._models) == 1 else ""
        return found
