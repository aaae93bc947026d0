"""`tern proto`: the contracts, for whoever generates a client or an engine in another language."""

from pathlib import Path

import click

from tern.cli.envelope import talk
from tern.domain.errors import UsageError
from tern.shipped import contract_files, contracts


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy them below this folder, which is made. Files of the same names are replaced.",
)
def proto(*, out: Path | None) -> None:
    """Where the .proto files of this version are: `protoc -I "$(tern proto)" tern/v1/tern.proto …`.

    tern.control.v1 is what `tern serve` speaks, tern.v1 what an engine speaks. Only the folder is written to stdout.
    """
    if out is not None:
        _copy_to(out)
    click.echo(contracts() if out is None else out.resolve())
    for name in contract_files():
        talk(f"  {name}")


def _copy_to(folder: Path) -> None:
    try:
        for name in contract_files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((contracts() / name).read_bytes())
    except OSError as error:
        what = f"{error.filename} can't be written: {error.strerror}"
        raise UsageError(what, next_step="Say --out with a folder that you may write to.") from None
