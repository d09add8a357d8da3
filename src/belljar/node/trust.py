"""Which CAs a sandbox trusts, and the names by which its programs are told."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ("GUEST_VARIABLES", "host_ca_bundle", "trusts_host")

_HOST_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
GUEST_VARIABLES = (*_HOST_VARIABLES, "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "NPM_CONFIG_CAFILE")
"""What Python, pip, Node, npm, curl, git and the AWS tools read."""
_PLACES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def trusts_host(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether sandboxes trust what the host trusts: ``BELLJAR_TRUST_HOST_CAS`` (1 or 0), else whether the host's environment
    names a CA bundle, as it does behind a proxy that opens TLS.
    """
    said = environ.get("BELLJAR_TRUST_HOST_CAS") or ("1" if any(environ.get(name) for name in _HOST_VARIABLES) else "0")
    return said.lower() not in ("0", "no", "false", "off")


def host_ca_bundle(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The host's CA bundle: the one that its environment names, else the system's; None where there is neither."""
    named = [environ[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if environ.get(name)]
    for place in (*named, *_PLACES):
        if Path(place).is_file():
            return Path(place)
    return None
