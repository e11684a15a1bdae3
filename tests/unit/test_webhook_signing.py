"""Signatures, checked by the official library of Standard Webhooks."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.jobs import signing

SECRETS = WebhookSecrets(b"k" * 32)
BODY = '{"type":"query.created","data":{"text":"zwölf € ✓"}}'.encode()


def test_the_official_library_verifies() -> None:
    stored = SECRETS.new()
    headers = signing.headers([SECRETS.key(stored)], "evt-1", datetime.now(UTC), BODY)
    assert Webhook(SECRETS.shown(stored)).verify(BODY, headers) == json.loads(BODY)


def test_the_signature_is_the_one_the_library_makes() -> None:
    stored, at = SECRETS.new(), datetime(2026, 11, 24, 12, 0, 0, 999_999, tzinfo=UTC)
    theirs = Webhook(SECRETS.shown(stored)).sign("evt-1", at, BODY.decode())
    ours = signing.headers([SECRETS.key(stored)], "evt-1", at, BODY)
    assert ours["webhook-signature"] == theirs
    assert ours["webhook-timestamp"] == str(int(at.timestamp()))


def test_the_time_is_the_same_in_every_zone() -> None:
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    elsewhere = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert signing.headers([b"k"], "e", at, b"") == signing.headers([b"k"], "e", elsewhere, b"")


def test_both_secrets_verify_while_one_rotates() -> None:
    old, new = SECRETS.new(), SECRETS.new()
    keys = [SECRETS.key(new), SECRETS.key(old)]
    headers = signing.headers(keys, "evt-1", datetime.now(UTC), BODY)
    for stored in (old, new):
        Webhook(SECRETS.shown(stored)).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS.shown(SECRETS.new())).verify(BODY, headers)


@pytest.mark.parametrize("what", ["webhook-id", "webhook-timestamp", "body"])
def test_nothing_signed_can_be_changed(what: str) -> None:
    stored = SECRETS.new()
    headers = signing.headers([SECRETS.key(stored)], "evt-1", datetime.now(UTC), BODY)
    body = BODY
    if what == "body":
        body = BODY.replace(b"query", b"Query")
    elif what == "webhook-id":
        headers[what] = "evt-2"
    else:
        headers[what] = str(int(headers[what]) + 1)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS.shown(stored)).verify(body, headers)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_body_verifies(text: str) -> None:
    stored = SECRETS.new()
    body = json.dumps({"text": text}, ensure_ascii=False).encode()
    headers = signing.headers([SECRETS.key(stored)], "evt-1", datetime.now(UTC), body)
    assert Webhook(SECRETS.shown(stored)).verify(body, headers) == {"text": text}


def test_a_secret_has_the_form_of_the_standard_and_its_stored_form_holds_none_of_it() -> None:
    stored = SECRETS.new()
    shown = SECRETS.shown(stored)
    assert shown.startswith("whsec_")
    assert len(base64.b64decode(shown.removeprefix("whsec_"), validate=True)) == 32
    assert stored not in shown
    assert SECRETS.shown(stored) == shown
    assert WebhookSecrets(b"K" * 32).shown(stored) != shown
    assert len({SECRETS.shown(SECRETS.new()) for _ in range(100)}) == 100
