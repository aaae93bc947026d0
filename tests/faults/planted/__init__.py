"""The table of planted bugs, by what they break."""

from tests.faults.planted import (
    clock,
    controls,
    dispatching,
    doors,
    driving,
    engine,
    evidence,
    halting,
    many,
    overlooked,
    own_work,
    record,
    review,
    rollout,
    targets,
    verbs,
)

MUTANTS = (
    *dispatching.MUTANTS,
    *evidence.MUTANTS,
    *own_work.MUTANTS,
    *halting.MUTANTS,
    *driving.MUTANTS,
    *verbs.MUTANTS,
    *controls.MUTANTS,
    *rollout.MUTANTS,
    *record.MUTANTS,
    *review.MUTANTS,
    *engine.MUTANTS,
    *doors.MUTANTS,
    *overlooked.MUTANTS,
    *clock.MUTANTS,
    *many.MUTANTS,
    *targets.MUTANTS,
)
