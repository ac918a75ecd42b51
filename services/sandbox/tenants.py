"""What a tenant may be called, and which one a client certificate is for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# It may become part of a path, a label or a log line.
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def tenant_of_certificate(peer: Mapping[str, Sequence[bytes]]) -> str | None:
    """The tenant that a verified client certificate names, None where there is no certificate.

    It is the first of the subject's alternative names: a DNS name as it is, of a URI such as spiffe://example.org/tenant/alice
    the last part; without any, the common name. `peer` is gRPC's auth context. What comes back may be no possible name.
    """
    names = [*peer.get("x509_subject_alternative_name", ()), *peer.get("x509_common_name", ())]
    return names[0].decode("utf-8", "replace").rpartition("/")[2] if names else None
