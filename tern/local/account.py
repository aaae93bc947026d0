"""Where the embedded servers may live and as whom they run.

An ordinary user runs them as himself, inside the directory. PostgreSQL refuses to run as root, so root hands
them to an unprivileged account. That account may be unable to enter the directory or to read the installed
programs (a clone below /root, say). We never widen the permissions of what we did not create: then programs
and data move to a shelter of our own under /var/tmp, and the directory holds links to it.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tern.domain.errors import Misconfigured
from tern.local.launching import MAY_NOT_BECOME, launched

# An account that every system has and that owns nothing; creating one would change the machine.
UNPRIVILEGED = "nobody"
NOT_NEEDED_TO_RUN = shutil.ignore_patterns("include", "*.a", "pgxs")
# Survives a restart of the machine, which /tmp need not; the shelter inside is checked to be ours.
SHELTERS = next((place for place in (Path("/var/tmp"), Path("/tmp")) if place.is_dir()), Path("/"))  # noqa: S108


@dataclass(frozen=True)
class Account:
    """An unprivileged account."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int]:
        """User and group, as the launcher wants them."""
        return self.uid, self.gid

    def can_enter(self, folder: Path) -> bool:
        """Whether the account can walk into a folder; the system is asked, it knows of access lists too."""
        return self._can("-x", folder)

    def can_run(self, program: Path) -> bool:
        """Whether the account can read and run a program."""
        return self._can("-x", program) and self._can("-r", program)

    def _can(self, test: str, path: Path) -> bool:
        question = subprocess.run(  # noqa: S603 - a fixed command; the path is an argument
            launched(["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)], ids=self.ids),
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            check=False,
        )
        if question.returncode == MAY_NOT_BECOME:
            # A container may take root's power to become somebody else.
            what = f"PostgreSQL does not run as root, and this root may not become {self.name!r}"
            raise Misconfigured(
                what, why=(question.stderr.strip(),), next_step="Run this command as an ordinary user."
            )
        return question.returncode == 0


def server_account() -> Account | None:
    """The account that the servers must run as, or None if they run as whoever asks.

    Raises Misconfigured where there is no such account or this process may not become it.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        what = (
            f"PostgreSQL does not run as root, and this system has no account {UNPRIVILEGED!r} to run it as"
        )
        raise Misconfigured(what, next_step="Run this command as an ordinary user.") from None
    account = Account(UNPRIVILEGED, entry.pw_uid, entry.pw_gid)
    account.can_enter(Path("/"))
    return account


def make_folder(path: Path, mode: int) -> bool:
    """Creates a folder with this mode, whatever the umask; one that exists is left alone. True if new."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            what = f"{path} is not a directory"
            raise Misconfigured(what, next_step="Set TERN_HOME to another directory.") from None
        return False
    except OSError as error:
        what = f"{path} can't be created: {error.strerror}"
        raise Misconfigured(what, next_step="Set TERN_HOME to a directory that you may write to.") from None
    path.chmod(mode)
    return True


def hand_over(path: Path, account: Account | None) -> None:
    """Gives a path that we have just created to the account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def data_folder(home: Path, name: str, account: Account | None) -> Path:
    """A private folder for one server's data: `home/name`, or a link there to the shelter."""
    here = home / name
    if here.is_dir():
        return here.resolve()
    if account is None or account.can_enter(home):
        place = here
    else:
        place = shelter(home) / name
        here.unlink(missing_ok=True)
        here.symlink_to(place)
    if make_folder(place, 0o700):
        hand_over(place, account)
    return place


def readable_package(home: Path, package: Path, program: str, account: Account | None) -> Path:
    """A folder with an installed package that the account can run: the package itself, or a copy."""
    if account is None or account.can_run(package / program):
        return package
    # Named after its origin, so that an upgraded package is copied anew.
    origin = f"{package}:{package.stat().st_mtime_ns}"
    copy = shelter(home) / f"{package.name}-{_digest(origin)}" / package.name
    if not copy.exists():
        draft = copy.parent.with_suffix(f".{os.getpid()}")
        # Programs find their libraries beside the package (`<name>.libs`), by a path relative to themselves.
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, draft / folder.name, ignore=NOT_NEEDED_TO_RUN)
        for path in [draft, *draft.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        draft.rename(copy.parent)
    return copy


def shelter(home: Path) -> Path:
    """Our own folder outside `home`, one per home; refused if somebody else made it first."""
    place = SHELTERS / f"tern-{_digest(str(home))}"
    link = home / "shelter"
    try:
        place.mkdir(mode=0o711)
        place.chmod(0o711)
    except FileExistsError:
        found = place.lstat()
        # Anybody may create names in /var/tmp; one that isn't ours could be a trap.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            what = f"{place} belongs to somebody else"
            raise Misconfigured(what, next_step="Set TERN_HOME to another directory.") from None
    if not link.is_symlink():
        link.symlink_to(place)
    return place


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
