"""Join tokens: format, and clear words for whatever else is typed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ca.authority import Authority, new_join_tokens, node_id_of_request_untrusted
from cluster.ca.certificates import (
    certificate_digest_untrusted,
    new_request,
    new_root_ca,
    read_identity_untrusted,
)
from cluster.ca.tokens import (
    TOKEN_LENGTH,
    JoinToken,
    format_token,
    is_same_token,
    new_token,
    parse_token_untrusted,
)
from cluster.model.errors import Invalid
from cluster.model.ids import ClusterId, NodeId, is_id
from cluster.model.node import Role

NOW = 1_800_000_000.0
ROOT = new_root_ca(NOW)
TOKEN = new_token(ROOT.certificate)
AUTHORITY = Authority(
    cluster=ClusterId("c" * 25), root=ROOT, tokens=new_join_tokens(ROOT.certificate)
)


def test_a_token_pins_the_ca_and_has_swarms_shape() -> None:
    assert len(TOKEN) == TOKEN_LENGTH == 85
    assert TOKEN.startswith("SWMTKN-1-")
    pinned = parse_token_untrusted(f" {TOKEN}\n").ca_digest
    assert pinned == certificate_digest_untrusted(ROOT.certificate)
    assert new_token(ROOT.certificate) != TOKEN


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_round_trip(digest: bytes, secret: bytes) -> None:
    token = JoinToken(digest, secret)
    assert parse_token_untrusted(format_token(token)) == token


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with SWMTKN-1-"),
        ("hello", "does not begin with SWMTKN-1-"),
        (TOKEN[:60], "cut short, 60 of 85 characters"),
        (TOKEN[:-1], "cut short, 84 of 85 characters"),
        (TOKEN + "0", "too long, 86 instead of 85"),
        (TOKEN.replace("SWMTKN-1-", "SWMTKN-3-"), "version '3' is not known"),
        ("SWMTKN-2-1-" + TOKEN[9:], "FIPS"),
        (TOKEN[:20] + "-" + TOKEN[21:], "parts are not where they should be"),
        (TOKEN[:20] + "A" + TOKEN[21:], "CA digest has characters that are no base36 digits"),
        (TOKEN[:-1] + "!", "secret has characters that are no base36 digits"),
        ("SWMTKN-1-" + "z" * 50 + "-" + "0" * 25, "CA digest is out of range"),
    ],
    ids=range(11),  # not the token: it is another one in every process
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        parse_token_untrusted(text)
    assert str(caught.value).startswith("invalid join token: ")
    assert TOKEN[-25:-2] not in str(caught.value)


@given(st.text(max_size=100))
def test_any_text_raises_only_invalid(text: str) -> None:
    with contextlib.suppress(Invalid):
        parse_token_untrusted(text)
    with contextlib.suppress(Invalid):
        AUTHORITY.role_of_token_untrusted(text)
    with contextlib.suppress(Invalid):
        parse_token_untrusted("SWMTKN-1-" + text)
    assert not is_same_token(text, TOKEN)


def test_the_token_decides_the_role() -> None:
    tokens = AUTHORITY.tokens
    assert AUTHORITY.role_of_token_untrusted(tokens.worker) is Role.WORKER
    assert AUTHORITY.role_of_token_untrusted(tokens.manager) is Role.MANAGER
    for wrong in (TOKEN, "SWMTKN-1-" + "0" * 50 + "-" + "1" * 25):
        with pytest.raises(Invalid, match=r"^A valid join token is necessary"):
            AUTHORITY.role_of_token_untrusted(wrong)
    assert tokens.worker not in repr(AUTHORITY)


def test_the_same_key_is_the_same_node() -> None:
    request = new_request()
    node = node_id_of_request_untrusted(request.csr)
    assert is_id(node)
    assert node == node_id_of_request_untrusted(request.csr)
    assert node != node_id_of_request_untrusted(new_request().csr)
    pem = AUTHORITY.issue_untrusted(request.csr, node=node, role=Role.MANAGER, now=NOW)
    assert read_identity_untrusted(pem).node == node


def test_a_malformed_request_is_invalid() -> None:
    with pytest.raises(Invalid, match="certificate request cannot be read"):
        AUTHORITY.issue_untrusted(b"x", node=NodeId("n" * 25), role=Role.WORKER, now=NOW)
    with pytest.raises(Invalid, match="certificate request cannot be read"):
        node_id_of_request_untrusted(b"x")
