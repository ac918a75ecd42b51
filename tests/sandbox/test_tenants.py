"""Which tenant a client certificate is for."""

from __future__ import annotations

import pytest

from services.sandbox.tenants import TENANT_NAME, tenant_of_certificate

SAN, CN = "x509_subject_alternative_name", "x509_common_name"


@pytest.mark.parametrize(
    ("peer", "tenant"),
    [
        ({}, None),
        ({"transport_security_type": [b"ssl"]}, None),
        ({SAN: [b"alice", b"other"], CN: [b"ignored"]}, "alice"),
        ({SAN: [b"spiffe://example.org/tenant/bob"]}, "bob"),
        ({SAN: [], CN: [b"carol"]}, "carol"),
        ({CN: [b""]}, ""),
    ],
)
def test_the_first_alternative_name_counts_before_the_common_name(peer: dict[str, list[bytes]], tenant: str | None) -> None:
    assert tenant_of_certificate(peer) == tenant


def test_a_name_that_is_no_utf_8_cannot_be_a_tenant() -> None:
    assert not TENANT_NAME.fullmatch(tenant_of_certificate({CN: [b"\xff"]}) or "")
