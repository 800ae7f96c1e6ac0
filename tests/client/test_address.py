"""What a connection to an address needs."""

import ssl

import pytest

from emberd.client.address import Address


@pytest.mark.parametrize("url", ["https://a:1", "HTTPS://a"])
def test_https_is_verified_with_the_systems_certificates(url: str) -> None:
    assert Address(url).verify is True


def test_http_reads_no_certificates_and_would_trust_none() -> None:
    context = Address("http://127.0.0.1:8767").verify

    assert isinstance(context, ssl.SSLContext)
    assert context.cert_store_stats()["x509"] == 0
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_token_is_sent_and_not_shown() -> None:
    address = Address("http://a", token="s3cret")  # noqa: S106 - made up

    assert address.headers == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(address)
    assert Address("http://a").headers == {}
