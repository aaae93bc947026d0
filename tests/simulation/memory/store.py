"""All durable steps together: ports.Store in memory.

MemoryStore(Database(Clock()), owner="…") answers every port call as PostgresStore does and leaves the same rows:
test_equality.py holds the two together.
"""

from tests.simulation.memory.answer import AnswerSteps
from tests.simulation.memory.apply import ApplySteps
from tests.simulation.memory.delivery import DeliverySteps
from tests.simulation.memory.dispatch import DispatchSteps
from tests.simulation.memory.poll import PollSteps
from tests.simulation.memory.uncalled import UncalledSteps
from tests.simulation.memory.wish import WishSteps


class MemoryStore(DispatchSteps, DeliverySteps, AnswerSteps, WishSteps, UncalledSteps, PollSteps, ApplySteps):
    """One worker's way to the truth."""
