"""What each table and column of engines and evidence means, as in comments.py, and all of these texts together: how
they get to the mapped tables, and from there to the database.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, MetaData, text
from sqlalchemy.schema import SetColumnComment, SetTableComment

from tern.store.comments import ROLLOUT

_ROW = "Number of the row; given once, never used again."

EVIDENCE: Mapping[str, Mapping[str, str]] = {
    "engines": {
        "": "Engines, each with one number however many deployments it serves. Written by triggers.",
        "number": "Its number; given once, never used again.",
        "address": "Where it answers.",
        "environment": "The environment that its deployments belong to.",
        "created_at": "When a deployment first had it.",
    },
    "remote_ids": {
        "": "Whose an engine's id is: no engine's id ever belongs to two operations. Written by triggers.",
        "engine_number": "The engine that gave it: engines.number.",
        "remote_id": "The id.",
        "operation_id": "The operation that may be called with it: apply_operations.id.",
        "stored_at": "When it was stored.",
    },
    "outstanding_calls": {
        "": "What was sent and may act although no operation follows it: `tern deployments outstanding` shows it.",
        "id": _ROW,
        "apply_id": "The apply that sent it: applies.id.",
        "operation_id": "The operation that sent it: apply_operations.id.",
        "environment": "Environment of its target.",
        "database": "Database of its target.",
        "deployment": "The deployment whose engine it was sent to; nothing new begins there until it is settled.",
        "dispatch_key": "The key that was sent; NULL where the id is known.",
        "remote_id": "The id that the engine gave; NULL where only the key is known.",
        "generation": "Which key of its operation it was, from 1.",
        "fence": "The fence that the call carried.",
        "engine_number": "The engine: engines.number; NULL where it is not known.",
        "address": "Where it was sent.",
        "why": "given_up, not_stored, contradicted, address_changed or let_go.",
        "caller": "Who gave it up; or the worker that noticed.",
        "reason": "Why, in that person's words.",
        "opened_at": "When it became outstanding.",
        "next_look_at": "When the engine is asked about it again; NULL where nothing is left to see.",
        "looks": "How many answers about it have been written down.",
        "last_seen": "What the last answer said.",
        "last_seen_at": "When; NULL for never.",
        "settled_at": "Since when it is known to do nothing any more; NULL while it is open.",
        "settled_by": "`engine`, or the person who looked; '' while it is open.",
        "settled_as": "As what: completed, failed, cancelled, adopted, said …; '' while it is open.",
        "settled_reason": "Why, in that person's words.",
        "proven_address": "Where the same engine was proven to be since; '' where it has not moved.",
        "silent_looks": "Asked without a usable answer, times in a row.",
        "cancel_asked_at": "When a person asked to end it; NULL where nobody did.",
        "cancel_caller": "Who asked.",
        "cancel_reason": "Why, in that person's words.",
        "cancel_calls": "How many times its engine was told.",
        "cancel_words": "What the engine said of it last.",
    },
    "deployment_silences": {
        "": "Deployments whose engine let calls of a kind run out without an answer; the first answer removes the row.",
        "deployment": "The deployment: deployments.name.",
        "kind": "Which calls: dispatch, control, poll or health.",
        "in_a_row": "How many.",
        "since": "When the first of them began.",
        "last_at": "When the last of them ran out.",
        "retry_at": "When one is tried again; the others wait for it.",
    },
    "same_targets": {
        "": "What is known of two deployments whose engines name the same server and database.",
        "one": "The deployment whose name comes first.",
        "other": "The other one.",
        "finding": "same (one target), two (two targets), or suspected, which counts as one until it is known.",
        "identity": "What both engines named.",
        "found_at": "When it was found.",
    },
    "table_changes": {
        "": "The statements of an operation, with their progress.",
        "id": _ROW,
        "operation_id": "The operation: apply_operations.id.",
        "apply_id": "The apply: applies.id.",
        "ordinal": "Its number in the operation, from 1.",
        "namespace": "Schema of the table; '' where the statement names none.",
        "table_name": "The table that it changes; '' where it changes none.",
        "ddl": "The statement itself.",
        "action": "What it does: create, alter, drop or other.",
        "unsafe_reason": "Why it may lose data or break readers; '' where it can't.",
        "state": "pending, running, completed, failed, skipped, unknown …: from the engine's samples.",
        "rows_copied": "Rows done so far; NULL where the engine counts none.",
        "rows_total": "Rows to do, about; NULL where the engine counts none.",
        "percent": "How much is done, 0 to 100.",
        "eta_seconds": "Seconds that the engine expects it to take still; NULL where it says nothing.",
        "checksum_rows_checked": "Rows compared after the copy; NULL where none are.",
        "checksum_rows_total": "Rows to compare; NULL where none are.",
        "detail": "What the engine is doing, or waits for, in words.",
        "error": "What went wrong, in the engine's words.",
        "settled_by": "Who said what became of it: `engine`, or the person who looked; '' where nobody did.",
        "origin_id": "Of a follow-up, the statement of the first apply that it is: table_changes.id; else NULL.",
    },
}
COMMENTS: Mapping[str, Mapping[str, str]] = {**ROLLOUT, **EVIDENCE}


def give_comments(metadata: MetaData) -> None:
    """To each mapped table and column its text."""
    for name, texts in COMMENTS.items():
        table = metadata.tables[name]
        table.comment = texts[""]
        for column in table.columns:
            column.comment = texts.get(column.name)


_THERE = text(
    "SELECT c.relname, coalesce(a.attname, '') AS column_name, coalesce(d.description, '') AS said"
    " FROM pg_class c JOIN (SELECT attrelid, attname, attnum FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped"
    "   UNION ALL SELECT oid, NULL, 0 FROM pg_class) a ON a.attrelid = c.oid"
    " LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = a.attnum"
    " WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace ORDER BY c.relname, a.attnum"
)


def write_comments(connection: Connection, metadata: MetaData) -> None:
    """Into the database: those that differ, of what is there. They lock out other changes of the schema, no work."""
    for row in connection.execute(_THERE).all():
        texts = COMMENTS.get(row.relname, {})
        if texts.get(row.column_name, row.said) == row.said:
            continue
        table = metadata.tables[row.relname]
        column = table.columns.get(row.column_name)
        connection.execute(SetTableComment(table) if column is None else SetColumnComment(column))
