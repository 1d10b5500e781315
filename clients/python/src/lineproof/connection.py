"""How the service is reached: plaintext on this machine, else TLS, with a certificate of one's own where the plant asks for it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from .client import Client
from .retry import Retry

# An answer holds names, scores and at most some hundred boxes, never pixels.
_ANSWER_BYTES_MAX = 1 << 20

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _ANSWER_BYTES_MAX),
    # A pulled cable is noticed without waiting for an answer that cannot come.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A service that is back is found at once: the library's own pause between attempts grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Attempts are counted and reported here, not hidden below.
    ("grpc.enable_retries", 0),
    # A proxy for the office's web traffic is no way to the line's service.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True)
class Tls:
    """PEM files. `certificate` and `key` go together: this line PC's own, where the service asks clients for one."""

    ca: str | PathLike[str]
    """Of the authority that signed the service's certificate."""
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")


def connect(server: str = "http://127.0.0.1:7443", tls: Tls | None = None, retry: Retry = Retry()) -> Client:
    """A client of the service at `server`, `http://HOST:PORT` or `https://HOST:PORT`. Thread-safe; close it or use `with`.

    The connection itself is made, and made again, when something is asked. Raises `ValueError` for an address that cannot
    work (plain http goes to this machine only, https needs `tls`), and `OSError` for PEM files that cannot be read.
    """
    url = urlsplit(server)
    if url.scheme not in ("http", "https") or not url.hostname or url.path not in ("", "/") or url.query:
        raise ValueError(f"{server!r} is no address of a service; write https://HOST:PORT")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    target = f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"
    if url.scheme == "https":
        if tls is None:
            raise ValueError("https needs tls=Tls(ca=FILE), the authority that signed the service's certificate")
        return Client(grpc.secure_channel(target, _credentials(tls), _OPTIONS), retry)
    if tls is not None:
        raise ValueError(f"{server!r} is plain http, which takes no certificates; write https://")
    if not _is_loopback(url.hostname):
        raise ValueError(f"plain http goes to this machine only, not to {url.hostname}; write https:// and give tls=Tls(ca=FILE)")
    return Client(grpc.insecure_channel(target, _OPTIONS), retry)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    key, certificate = (None if path is None else Path(path).read_bytes() for path in (tls.key, tls.certificate))
    return grpc.ssl_channel_credentials(Path(tls.ca).read_bytes(), key, certificate)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
