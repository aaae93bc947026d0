"""A request's hash covers all that it asks for: the volume, and how many failures a release has opened.

The hash is made here, so requests that workers of the version before accept are covered as well. A request that has
neither has the hash that it always had; and one that was written before this, the hash that was made of it then.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_OLD = (
    "tern_hashed({row}.id::text) || tern_hashed({row}.apply_id::text)"
    " || tern_hashed((extract(epoch FROM {row}.created_at) * 1000000)::bigint::text) || tern_hashed({row}.verb)"
    " || tern_hashed({row}.caller) || tern_hashed({row}.reason) || tern_hashed({row}.outcomes::text)"
)
# Each with its name, and nothing where there is none.
_MORE = (
    " || CASE WHEN NEW.volume IS NULL THEN '' ELSE 'volume' || tern_hashed(NEW.volume::text) END"
    " || CASE WHEN NEW.failures_released IS NULL THEN ''"
    " ELSE 'failures_released' || tern_hashed(NEW.failures_released::text) END"
)
_HASHED = """
CREATE OR REPLACE FUNCTION control_requests_are_hashed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.hash := sha256(convert_to({line}, 'UTF8'));
    RETURN NEW;
END $$;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_HASHED.format(line=_OLD.format(row="NEW") + _MORE))


def downgrade() -> None:
    # Who verifies after this knows the old hash alone.
    connection = op.get_bind()
    connection.exec_driver_sql(_HASHED.format(line=_OLD.format(row="NEW")))
    connection.exec_driver_sql("ALTER TABLE control_requests DISABLE TRIGGER USER")
    connection.exec_driver_sql(
        f"UPDATE control_requests r SET hash = sha256(convert_to({_OLD.format(row='r')}, 'UTF8'))"
        " WHERE (r.volume IS NOT NULL OR r.failures_released IS NOT NULL) AND r.hash = sha256(convert_to("
        f"{_OLD.format(row='r')}{_MORE.replace('NEW.', 'r.')}, 'UTF8'))"
    )
    connection.exec_driver_sql("ALTER TABLE control_requests ENABLE TRIGGER USER")
