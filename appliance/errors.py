"""Every failure the appliance names itself, with what the operator can do about it.

One tree, three facts a class: a stable ``code`` for programs, an HTTP ``status``, and a ``hint``
for people. ``api/problems.py`` turns an error into ``application/problem+json``; ``cli/output.py``
turns the same error into one line and a hint. Nothing else translates errors.
"""

from __future__ import annotations

from typing import ClassVar


class ApplianceError(Exception):
    """Base of all expected failures.

    :param detail: what happened, in one sentence, without customer text or secrets.
    :param hint: what to do; defaults to the class's own hint.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong inside the appliance"
    default_hint: ClassVar[str] = "See the appliance's log of this moment."

    def __init__(self, detail: str = "", *, hint: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.hint = self.default_hint if hint is None else hint


class InvalidInput(ApplianceError):
    """The request or file cannot be understood; nothing was changed."""

    code = "invalid_input"
    status = 400
    title = "The input is not valid"
    default_hint = "Correct the input and send it again."


class SettingsError(ApplianceError):
    """A setting is missing or makes no sense; the process refuses to start."""

    code = "settings"
    title = "The configuration is not valid"
    default_hint = "Correct the setting in the TOML file or its APPLIANCE_... variable."


class Unauthenticated(ApplianceError):
    """No key or session, or one that is unknown, expired or revoked."""

    code = "unauthenticated"
    status = 401
    title = "A valid key is needed"
    default_hint = "Send 'Authorization: Bearer KEY'; make one with 'appliance keys create'."


class Forbidden(ApplianceError):
    """The key is valid, its role or user does not allow this."""

    code = "forbidden"
    status = 403
    title = "This key may not do that"
    default_hint = "Use a key whose role allows it."


class NotFound(ApplianceError):
    """It does not exist, or it belongs to somebody else: the two must look the same."""

    code = "not_found"
    status = 404
    title = "Not found"
    default_hint = "Check the id."


class Conflict(ApplianceError):
    """The state of the thing does not allow this now."""

    code = "conflict"
    status = 409
    title = "That does not fit the present state"
    default_hint = "Read the present state, then try again."


class UnderWay(Conflict):
    """The same request is being answered at this moment; ``retry_after`` is in seconds."""

    code = "under_way"
    title = "This request is being answered already"
    default_hint = "Wait for the time in Retry-After, then send it again with the same key."

    def __init__(self, detail: str = "", *, retry_after: int = 1, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class KeyReused(ApplianceError):
    """An ``Idempotency-Key`` that came with another request before."""

    code = "idempotency_key_reused"
    status = 422
    title = "This Idempotency-Key belongs to another request"
    default_hint = "Use a new key for a new request; keep the body when a request is repeated."


class TooSlow(ApplianceError):
    """The request did not arrive in the time it may take; nothing was changed."""

    code = "too_slow"
    status = 408
    title = "The request took too long to arrive"
    default_hint = "Send it again; APPLIANCE_REQUEST_SECONDS is the limit."


class ReadOnly(ApplianceError):
    """The disk is nearly full: reading goes on, nothing is accepted that could not be stored."""

    code = "read_only"
    status = 507
    title = "The appliance is read-only because its disk is nearly full"
    default_hint = (
        "Free space on the data folder's disk; writing goes on by itself. "
        "APPLIANCE_DISK_RESERVE_MIB is the mark."
    )

    def __init__(self, detail: str = "", *, retry_after: int = 30, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class RateLimited(ApplianceError):
    """Too many requests; ``retry_after`` says when to come back, in seconds."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"
    default_hint = "Wait for the time in Retry-After."

    def __init__(self, detail: str = "", *, retry_after: int = 1, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class NotReady(ApplianceError):
    """The appliance is starting or stopping; ``retry_after`` is in seconds."""

    code = "not_ready"
    status = 503
    title = "The appliance is not ready yet"
    default_hint = "Wait a moment; 'appliance doctor' says what is missing."

    def __init__(self, detail: str = "", *, retry_after: int = 2, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class StorageUnavailable(ApplianceError):
    """The database cannot be opened, is locked past patience, or is not migrated."""

    code = "storage_unavailable"
    status = 503
    title = "The database is not available"
    default_hint = "Run 'appliance db upgrade' if it is new; else 'appliance doctor'."


class ReceiverRefused(InvalidInput):
    """Webhooks may not go to that address, or nothing is there."""

    code = "receiver_refused"
    title = "Webhooks may not go there"
    default_hint = "List the receiver in APPLIANCE_WEBHOOK_ALLOW."


class NotMigrated(StorageUnavailable):
    """The database has not the form that this code expects."""


class StorageFull(StorageUnavailable):
    """The database's disk is full: nothing was stored, reading works."""

    code = "storage_full"
    status = 507
    title = "The database's disk is full"
    default_hint = "Free some space; reading works meanwhile."


class BackupFailed(ApplianceError):
    """No backup was made; those that were there still are."""

    code = "backup_failed"
    status = 507
    title = "The backup was not made"
    default_hint = "Earlier backups are untouched; see 'appliance db backups'."


class BackupRefused(InvalidInput):
    """A backup file is damaged, foreign, or not fit for this appliance; nothing was changed."""

    code = "backup_refused"
    title = "The backup cannot be used"
    default_hint = "Take another one: 'appliance db backups' lists those that are here."


class BackupUnsuited(BackupRefused):
    """A backup asks for another passphrase, release or database; of the file it says nothing."""

    code = "backup_unsuited"
    title = "The backup cannot be used here"


class KnowledgeFileError(InvalidInput):
    """A knowledge file cannot be read; nothing of it was imported."""

    code = "knowledge_file"
    title = "The knowledge file is not valid"
    default_hint = 'Expected {"faqs": [{"id", "question", "answer", "category"}]} as UTF-8 JSON.'


class WeightsError(ApplianceError):
    """Weights are missing, unreadable or not what their hash says."""

    code = "weights"
    title = "The model's weights cannot be used"
    default_hint = "See 'appliance models list' and 'appliance models show NAME'."


class BundleError(ApplianceError):
    """A bundle cannot be built, or is not what was signed; nothing was changed."""

    code = "bundle"
    title = "The bundle cannot be used"
    default_hint = "Copy the bundle again, or ask whoever made it."


class ModelError(ApplianceError):
    """Base of what a language-model backend can answer instead of words."""

    code = "model"
    status = 502
    title = "The language model failed"


class ModelUnavailable(ModelError):
    """Down, loading, full or too slow: the only model error on which a caller may fall back."""

    code = "model_unavailable"
    status = 503
    title = "The language model is not available"
    default_hint = "Answers come from the articles meanwhile; 'appliance doctor' shows the engine."

    def __init__(
        self, detail: str = "", *, retry_after: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class ModelBusy(ModelUnavailable):
    """Full at this moment: the one refusal that is worth a short wait."""

    code = "model_busy"
    title = "The language model has no place free"


class ModelRejected(ModelError):
    """The backend refused the request itself (4xx): a defect or a wrong setting, never hidden."""

    code = "model_rejected"
    status = 502
    title = "The language model refused the request"
    default_hint = "Check the model's name, context length and key in the settings."
