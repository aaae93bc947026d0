"""Pages of one look: a large apply is read once for all of its pages, and they belong together."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId
from tern.doors.answers import Apply

MOST_LOOKS = 16
KEPT_S = 30.0
_LARGEST = 2**63


class Looks:
    """The looks of which a next page may still be asked for. Kept for a short while, and only a few."""

    def __init__(
        self, look: Callable[[ApplyId], Apply], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[ApplyId, int], tuple[float, Apply]] = OrderedDict()

    def page(self, apply_id: ApplyId, token: str, size: int) -> tuple[Apply, int, str]:
        """The look, where in its operations the page begins, and the token of the next page; raises UsageError.

        A look that is not kept any more is taken anew.
        """
        start, _, mark = token.partition(".")
        begins, taken_at = number(start), number(mark)
        apply = self._recall(apply_id, taken_at) if mark else None
        if apply is None:
            apply = self._look(apply_id)
        ends = begins + size
        if ends >= len(apply.operations):
            return apply, begins, ""
        return apply, begins, f"{ends}.{self._keep(apply_id, apply)}"

    def _recall(self, apply_id: ApplyId, taken_at: int) -> Apply | None:
        with self._lock:
            kept_at, apply = self._kept.get((apply_id, taken_at), (0.0, None))
        return apply if self._monotonic() - kept_at <= KEPT_S else None

    def _keep(self, apply_id: ApplyId, apply: Apply) -> int:
        mark = int(apply.observed_at.timestamp() * 1_000_000)
        with self._lock:
            if (apply_id, mark) not in self._kept:
                self._kept[apply_id, mark] = (self._monotonic(), apply)
            while len(self._kept) > MOST_LOOKS:
                self._kept.popitem(last=False)
        return mark


def number(token: str) -> int:
    """A number that came with an answer, 0 for none; raises UsageError for anything else."""
    if not token:
        return 0
    if not (
        token.isascii() and token.isdigit() and len(token) <= len(str(_LARGEST)) and int(token) < _LARGEST
    ):
        what = "page_token is none that came with an answer"
        raise UsageError(what)
    return int(token)
