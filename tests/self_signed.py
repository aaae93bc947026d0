"""Certificates that nobody vouches for but themselves, good for a day."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, names: str = "DNS:localhost") -> tuple[Path, Path]:
    """A key and its certificate for localhost, made in that folder; skips the test where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    options = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
        f" -addext subjectAltName={names} -keyout {key} -out {certificate}"
    )
    subprocess.run([openssl, *shlex.split(options)], check=True, capture_output=True)
    return key, certificate
