"""Words for scenarios with engines that are gone, and may come back."""

from typing import Any

from tern.domain.identity import ApplyId
from tern.domain.selection import Selection
from tern.domain.timing import GONE_AFTER_S, GONE_AFTER_TRIES, RPC_DEADLINE_S
from tern.flows.accept import answer
from tern.ports import Answered, Resolved
from tern.store.reading import Reading
from tern.store.sql import text
from tern.view import ApplyView, apply_view
from tests.faults.behaviour import Behaviour, fail, lose_answer
from tests.flows.steps import PARALLEL
from tests.world import World

ASKED = (
    *("Apply", "Resolve", "Stop", "Start", "Cutover", "Cancel", "Revert", "SkipRevert", "Volume"),
    *("Progress", "BatchProgress", "Health", "Preview"),
)


def goes(world: World, *names: str, how: Behaviour | None = None) -> None:
    """Its machine is gone; or whatever else it answers from now on."""
    for name in names:
        for method in ASKED:
            world.engines[name].always(method, how or fail("UNAVAILABLE"))


def comes_back(world: World, *names: str) -> None:
    for name in names:
        for method in ASKED:
            world.engines[name].always(method, None)


def pass_long(world: World, rounds: int = GONE_AFTER_TRIES + 3) -> None:
    """Longer than it takes to call an engine gone, with a sweep every minute."""
    for _ in range(rounds):
        world.pass_time(GONE_AFTER_S / GONE_AFTER_TRIES + 16)
        world.sweep()
    # Until then the last call may still be answered.
    world.pass_time(RPC_DEADLINE_S + 1)


def give_up(
    world: World, *names: str, found: Resolved = Resolved.ENDED, dry_run: bool = False, who: str = "eve"
) -> Any:
    """A person says that the engines of the newest apply are gone there."""
    said = Answered(
        world.last, Selection(names), found, None, who, "it burned down", dry_run=dry_run, engine_is_gone=True
    )
    return answer(said, world.ports)


def given_up(world: World, name: str = "A", found: Resolved = Resolved.ENDED) -> str:
    """One that ran there, and whose engine has been gone for long; its remote id."""
    remote_id = str(world.remote_id(name))
    goes(world, name)
    pass_long(world)
    give_up(world, name, found=found)
    return remote_id


def kept_beside(world: World, name: str) -> str:
    """As if the claim had been lost before the id was stored, and the look that adopts it had failed: the operation has
    none, and its id stands among what is outstanding. The id.
    """
    operation, remote_id = world.operation(name), str(world.remote_id(name))
    with world.database.begin() as tx:
        # The database's own guards would refuse to take it away.
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(
            text(
                "UPDATE apply_operations SET engine_resume_context = NULL, state = 'uncertain', next_poll_at = NULL"
                " WHERE id = :id"
            ),
            {"id": operation.id},
        )
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id,"
        " generation, fence, engine_number, address, why, caller) VALUES (:apply, :id, 'test', 'shop', :name, :remote,"
        " 1, 1, :engine, :address, 'not_stored', 'w')",
        apply=operation.apply_id,
        id=operation.id,
        name=name,
        remote=remote_id,
        engine=operation.engine_number,
        address=world.engines[name].address,
    )
    return remote_id


def lines(world: World) -> list[Any]:
    """All that is or was outstanding, oldest first."""
    with world.database.begin() as tx:
        return list(tx.execute(text("SELECT * FROM outstanding_calls ORDER BY id")))


def unsettled(world: World) -> list[Any]:
    return [line for line in lines(world) if line.settled_at is None]


def look_again(world: World, rounds: int = 3) -> None:
    """Long enough for each line to be looked at."""
    for _ in range(rounds):
        world.pass_time(61)
        world.sweep()


def view(world: World, apply_id: str | None = None) -> ApplyView:
    return apply_view(Reading(world.database).apply(apply_id or world.last))  # type: ignore[arg-type]


def commands(world: World, apply_id: str | None = None) -> list[str]:
    """What explain prints to copy."""
    return [blocker.command for blocker in view(world, apply_id).blockers]


def key_given_up(world: World, *names: str) -> ApplyId:
    """A's Apply worked, its answer was lost with its engine, which was given up; the engine is back."""
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    apply_id = world.apply(*names, policy=PARALLEL)
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    comes_back(world, "A")
    return apply_id
