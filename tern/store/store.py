"""All durable steps together: ports.Store on PostgreSQL."""

from tern.ports import Store
from tern.store.answer import AnswerSteps
from tern.store.apply import ApplySteps
from tern.store.canary import CanarySteps
from tern.store.delivery import DeliverySteps
from tern.store.deployment import DeploymentSteps
from tern.store.dispatch import DispatchSteps
from tern.store.engines import EngineSteps
from tern.store.foresee import ForeseeSteps
from tern.store.gone import GoneSteps
from tern.store.identity import IdentitySteps
from tern.store.importing import ImportingSteps
from tern.store.member import MemberSteps
from tern.store.moving import MovingSteps
from tern.store.notify import NotifySteps
from tern.store.outstanding import OutstandingSteps
from tern.store.outstanding_here import OutstandingHereSteps
from tern.store.outstanding_look import OutstandingLookSteps
from tern.store.own_work import OwnWorkSteps
from tern.store.plan import PlanSteps
from tern.store.poll import PollSteps
from tern.store.preview import PreviewSteps
from tern.store.refusal import RefusalSteps
from tern.store.resolve import ResolveSteps
from tern.store.rest import RestSteps
from tern.store.silence import SilenceSteps
from tern.store.start import StartSteps
from tern.store.statement_answer import StatementSteps
from tern.store.twin import TwinSteps
from tern.store.uncalled import UncalledSteps
from tern.store.wish import WishSteps


class PostgresStore(
    DispatchSteps,
    IdentitySteps,
    NotifySteps,
    SilenceSteps,
    DeliverySteps,
    AnswerSteps,
    StartSteps,
    MemberSteps,
    WishSteps,
    UncalledSteps,
    ResolveSteps,
    StatementSteps,
    OutstandingSteps,
    OutstandingLookSteps,
    OutstandingHereSteps,
    GoneSteps,
    OwnWorkSteps,
    PollSteps,
    PlanSteps,
    PreviewSteps,
    ApplySteps,
    ForeseeSteps,
    RestSteps,
    RefusalSteps,
    DeploymentSteps,
    ImportingSteps,
    EngineSteps,
    TwinSteps,
    MovingSteps,
    CanarySteps,
):
    """One process's way to the truth. `PostgresStore(engine, owner="…")`; no method waits without a limit."""


def _is_the_port(store: PostgresStore) -> Store:
    """Checked by the type checker alone: every port method is here with its shape."""
    return store
