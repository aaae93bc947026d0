"""A person's word about single statements of one operation. One transaction."""

from tern.domain.errors import NotFound
from tern.domain.statement import WORDS, StatementAnswer, check_answer
from tern.domain.states import State
from tern.store.doubt import lock_operations
from tern.store.event import Happening, append_all
from tern.store.session import transaction
from tern.store.sql import text
from tern.store.step import Steps

_FIND = text(
    "SELECT o.id FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " WHERE a.apply_identifier = :apply AND o.deployment = :deployment"
)
_STATEMENTS = text(
    "SELECT id, state FROM table_changes WHERE operation_id = :id ORDER BY ordinal FOR NO KEY UPDATE"
)
_SETTLE = text(
    "UPDATE table_changes c SET state = s.word, settled_by = :who, eta_seconds = NULL"
    " FROM unnest(CAST(:ids AS bigint[]), CAST(:words AS text[])) AS s(id, word) WHERE c.id = s.id"
)


class StatementSteps(Steps):
    """`tern resolve --statement` on PostgreSQL."""

    def settle_statements(self, answer: StatementAnswer) -> None:
        """See ports.EvidenceStore."""
        name = answer.name
        with transaction(self.engine) as tx:
            key = tx.execute(
                _FIND, {"apply": name.apply_id, "deployment": name.deployment}
            ).scalar_one_or_none()
            if key is None:
                message = f"there is no operation {name}"
                raise NotFound(message)
            row = lock_operations(tx, [int(key)])[int(key)]
            statements = tx.execute(_STATEMENTS, {"id": row.id}).all()
            check_answer(answer, State(row.state), [each.state for each in statements])
            if answer.dry_run:
                return
            said = [
                (number, statements[number - 1], effect) for number, effect in sorted(answer.effects.items())
            ]
            tx.execute(
                _SETTLE,
                {
                    "ids": [each.id for _, each, _ in said],
                    "words": [WORDS[effect] for _, _, effect in said],
                    "who": answer.caller,
                },
            )
            append_all(
                tx,
                [
                    Happening(
                        row.apply_id,
                        "statement_settled",
                        answer.caller,
                        row.id,
                        f"statement {number} is {effect}: {answer.reason}",
                        each.state,
                        WORDS[effect],
                        {"statement": number},
                    )
                    for number, each, effect in said
                ],
            )
