"""A server's certificate, its key and who signs its clients: files that somebody renews while the server runs."""

import ssl
import threading
from pathlib import Path

import grpc
import structlog

_Stamps = tuple[tuple[int, int, int], ...]
_log = structlog.get_logger("tern.tls")


class CertificateFiles:
    """What is in the files is used from the next handshake on, once it fits together.

    They are written one after the other, so between two writes they may not: then, and while one of them can't be
    read, what was used before stays in use. Raises ValueError and OSError for those that it begins with.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self.first = self._read()

    def renewed(self) -> "grpc.ServerCertificateConfiguration | None":
        """What to use from now on, None for what is in use. gRPC asks before each handshake; it never raises."""
        with self._lock:
            found: _Stamps = ()
            try:
                found = self._stamps()
                if found == self._seen:
                    return None
                read = self._read()
                if self._stamps() != found:
                    # In the middle of being written; the next handshake looks again.
                    return None
            except (OSError, ValueError) as error:
                if found != self._seen:
                    # Once for each state of the files: a client that comes every second would fill the log.
                    self._seen = found
                    _log.warning("tls.certificate.kept", file=str(self._cert), why=_words(error))
                return None
            self._seen = found
            _log.info("tls.certificate.renewed", file=str(self._cert))
            return read

    def _stamps(self) -> _Stamps:
        found = [each.stat() for each in (self._cert, self._key, self._client_ca) if each is not None]
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)

    def _read(self) -> "grpc.ServerCertificateConfiguration":
        """Raises ValueError for files that don't fit together; gRPC itself would only refuse every client."""
        cert, key = self._cert.read_bytes(), self._key.read_bytes()
        authority = None if self._client_ca is None else self._client_ca.read_bytes()
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An encrypted key would be asked about on the terminal; gRPC can't use one either.
            trial.load_cert_chain(self._cert, self._key, password="")
        except ssl.SSLError as error:
            message = (
                f"the certificate in {self._cert} and the key in {self._key} can't be used: {_words(error)}"
            )
            raise ValueError(message) from None
        if self._client_ca is not None:
            try:
                trial.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                message = f"{self._client_ca} holds no certificate: {_words(error)}"
                raise ValueError(message) from None
        return grpc.ssl_server_certificate_configuration([(key, cert)], authority)


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it can't be read").replace("_", " ").lower()
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)
