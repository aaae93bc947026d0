"""The quick answer about the schema's revision is Alembic's own."""

from alembic.script import ScriptDirectory

from tern.store.revision import head
from tern.store.schema import alembic_config


def test_head_is_the_only_one_that_alembic_knows() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [head()]
