"""`tern proto`: where the contracts are, or a copy of them."""

from pathlib import Path

from tests.cli.conftest import Tern

ROOT = Path(__file__).parents[2] / "proto"


def test_the_folder_is_all_that_stands_on_stdout(bare: Tern) -> None:
    done = bare("proto")
    folder = Path(done.out.removesuffix("\n"))
    assert (done.code, folder) == (0, ROOT)
    named = [folder / line.strip() for line in done.err.splitlines()]
    assert sorted(named) == sorted(ROOT.rglob("*.proto"))


def test_a_copy_is_the_same_and_may_be_made_again(bare: Tern, tmp_path: Path) -> None:
    for _ in range(2):
        done = bare("proto", "--out", str(tmp_path / "made" / "here"))
        assert (done.code, done.out) == (0, f"{tmp_path / 'made' / 'here'}\n")
    copied = {
        path.relative_to(tmp_path / "made" / "here"): path.read_bytes() for path in tmp_path.rglob("*.proto")
    }
    assert copied == {path.relative_to(ROOT): path.read_bytes() for path in ROOT.rglob("*.proto")}


def test_a_folder_that_can_t_be_written_is_told(bare: Tern, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bare("proto", "--out", str(tmp_path / "file" / "below"))
    assert (done.code, "can't be written" in done.err) == (2, True)
