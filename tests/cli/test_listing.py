"""`ls`: newest first, one line each, narrowed by state and environment."""

from tests.cli.conftest import Tern
from tests.world import World


def test_an_empty_list_says_what_to_do(tern: Tern) -> None:
    assert "tern apply --help" in tern("ls").out
    assert tern("ls", "--json").data == {"applies": []}


def test_each_apply_is_one_line_and_can_be_selected(world: World, tern: Tern) -> None:
    first = world.apply("A")
    second = world.apply("B", "C")
    found = tern("ls", "--json").data["applies"]
    assert [each["apply_id"] for each in found] == [second, first]
    promised = {
        "apply_id",
        "state",
        "environment",
        "database",
        "operation_count",
        "counts",
        "caller",
        "reason",
        "age_s",
    }
    assert promised <= set(found[0])
    assert found[0]["counts"] == {"pending": 2}
    lines = tern("ls").out.splitlines()
    assert [line.split()[1] for line in lines] == [second, first]
    assert tern("ls", "--limit", "1").out.count("apl-") == 1
    assert len(tern("ls", "--live", "--json").data["applies"]) == 2
    assert tern("ls", "--state", "completed", "--json").data["applies"] == []
    assert tern("ls", "-e", "elsewhere", "--json").data["applies"] == []
    assert tern("ls", "--state", "nonsense").code == 2
    assert tern("ls", "--limit", "0").code == 2
