"""The receipt that was given for a wish, as it stands in control_requests.outcomes."""

import json
from collections.abc import Iterable

from tern.domain.control import ReceiptLine


def outcomes(lines: Iterable[ReceiptLine]) -> str:
    """One object for each operation, in the order of the answer."""
    return json.dumps(
        [{"deployment": each.deployment, "outcome": each.outcome, "reason": each.reason} for each in lines],
        ensure_ascii=False,
    )
