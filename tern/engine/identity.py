"""Who an engine is: the one environment, database and target that it works for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineIdentity:
    """What `tern engine serve` was told; work for anyone else is refused."""

    environment: str
    database: str
    target: str

    def mismatch(self, *, environment: str, database: str = "", target: str = "") -> str:
        """Says in words how a request differs from us; empty when it is for us.

        A foreign client may leave fields empty; an empty field claims nothing and so contradicts nothing.
        """
        asked = {"environment": environment, "database": database, "target": target}
        ours = {"environment": self.environment, "database": self.database, "target": self.target}
        wrong = [
            f"{name} {asked[name]!r}, not {ours[name]!r}"
            for name in ours
            if asked[name] not in {"", ours[name]}
        ]
        return f"the request is for {', '.join(wrong)}" if wrong else ""
