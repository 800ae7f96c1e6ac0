"""Every error a user can meet, as one tree.

EmberdError
├── ConfigError                   a setting is missing or malformed
├── UnknownModelError             no model or alias has that name
├── RequestError                  the request asks for something that cannot be done
│   ├── MalformedBodyError            not JSON, not UTF-8, or nested too deeply
│   ├── MediaTypeError                the body is not declared as JSON
│   │   └── ContentCodingError            the body is compressed
│   ├── WrongShapeError               JSON of the wrong shape; the field is named
│   ├── NoTextsError                  an empty list of texts
│   ├── TokenIdsError                 token ids instead of texts
│   ├── BadOptionError                an option out of range
│   ├── WrongKindError                a re-ranker to embed with, or the other way round
│   ├── TextTooLongError              a text is too long, and may not be cut
│   ├── NoTokensError                 a text has no token that the model knows
│   ├── TooLargeError                 the body or the number of texts is over the limit
│   ├── UnauthorizedError             a token is required, and it is missing or wrong
│   ├── ForbiddenError                a Host or Origin that is not allowed
│   ├── AlreadyRunningError           the same command has not ended yet
│   └── FingerprintMismatchError      the caller expects another vector space
├── UnavailableError              nothing is wrong with the request; it may work later
│   ├── SourceError                   no source of the model can be reached
│   ├── NoRoomError                   other models fill the memory until the deadline
│   ├── QueueFullError                too many texts are waiting
│   ├── SpaceChangingError            the model's space changed more than once meanwhile
│   ├── ShuttingDownError             the server is shutting down
│   ├── NotServedError                the model is not served here, or not in that space
│   └── DeadlineError                 the request's deadline passed
├── BackendError
│   ├── BackendMissingError           no installed plugin has that name
│   ├── BackendBrokenError            the plugin is installed and cannot be imported or used here
│   ├── ModelLoadError                the model's files cannot be used
│   └── BadVectorError                the model gave no usable vector for a text
├── WorkerError
│   ├── WorkerStartError              the process never became ready
│   └── WorkerCrashedError            the process died twice on the same request
├── StoreError                    a vector store cannot be read or changed; it is unchanged
│   ├── NotAStoreError                the path is not a store of that kind, or its schema differs
│   ├── StoreKindError                no installed kind of store has that name or option
│   ├── StoreBusyError                another process has it locked
│   ├── BackupError                   its backup cannot be restored; both are unchanged
│   ├── StoreRowsError                some of its rows cannot be embedded
│   ├── DiskFullError                 there is not enough disk space
│   └── MigrationError                the result was wrong, and was rolled back
└── ServerError                   the command line could not reach or start a server
    ├── NoServerError                 no server is running
    ├── PortTakenError                something else is listening on the port
    └── ServiceError                  the machine's service manager failed

HTTP statuses are decided in `api.errors` and exit codes in `cli.main`, not here. A worker sends
`code`, `message` and `hint` to the server, where `from_code` recreates the error.
"""

from typing import ClassVar


class EmberdError(Exception):
    """An error with a stable code, a sentence that says what happened, and a hint about what to do.

    `field` names the part of the request that is wrong, if there is one.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field


class ConfigError(EmberdError):
    """A setting is missing or malformed; the message names file, line and key."""

    code = "config"


class UnknownModelError(EmberdError):
    """No model or alias has the requested name."""

    code = "unknown_model"


class RequestError(EmberdError):
    """The request asks for something that cannot be done."""

    code = "bad_request"


class MalformedBodyError(RequestError):
    """The body is not JSON, not UTF-8, or nested too deeply."""

    code = "malformed_body"


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"


class ContentCodingError(MediaTypeError):
    """The body is compressed, which is not supported."""

    code = "unsupported_coding"


class WrongShapeError(RequestError):
    """Well-formed JSON of the wrong shape; the message names the field."""

    code = "wrong_shape"


class NoTextsError(RequestError):
    """The list of texts is empty."""

    code = "no_texts"


class TokenIdsError(RequestError):
    """Token ids instead of texts: ids from another tokenizer would embed as garbage."""

    code = "token_ids"


class BadOptionError(RequestError):
    """An option is out of range for this model, or has an unknown value."""

    code = "bad_option"


class WrongKindError(RequestError):
    """The model embeds texts and the request wants them re-ranked, or the other way round."""

    code = "wrong_kind"


class TextTooLongError(RequestError):
    """A text has too many tokens, and may not be cut."""

    code = "text_too_long"


class NoTokensError(RequestError):
    """A text has no token that the model knows, so there is nothing to make a vector of."""

    code = "no_tokens"


class TooLargeError(RequestError):
    """The body or the number of texts is over the limit."""

    code = "too_large"


class UnauthorizedError(RequestError):
    """The server requires a token, and the request has none or a wrong one."""

    code = "unauthorized"


class ForbiddenError(RequestError):
    """The Host or Origin header is not allowed on this server."""

    code = "forbidden"


class AlreadyRunningError(RequestError):
    """The same command of the server's has not ended yet."""

    code = "already_running"


class FingerprintMismatchError(RequestError):
    """The caller expects vectors of another space than the model's."""

    code = "fingerprint_mismatch"


class UnavailableError(EmberdError):
    """Nothing is wrong with the request; it may work later."""

    code = "unavailable"


class SourceError(UnavailableError):
    """No source of the model can be reached."""

    code = "model_unavailable"


class NoRoomError(UnavailableError):
    """Other models fill the memory, and none could be unloaded before the deadline."""

    code = "no_room"


class QueueFullError(UnavailableError):
    """Too many texts, or bytes of them, are already waiting."""

    code = "queue_full"


class SpaceChangingError(UnavailableError):
    """The model's vector space changed more than once before the answer was complete."""

    code = "space_changing"


class ShuttingDownError(UnavailableError):
    """The server is shutting down."""

    code = "shutting_down"


class NotServedError(UnavailableError):
    """The model is not served here, or not in the space that was named, or that is not known."""

    code = "not_served"


class DeadlineError(UnavailableError):
    """The request's deadline passed; a download or start in progress continues."""

    code = "deadline"


class BackendError(EmberdError):
    """A backend failed."""

    code = "backend"


class BackendMissingError(BackendError):
    """No installed plugin has the requested name."""

    code = "backend_missing"


class BackendBrokenError(BackendError):
    """The plugin is installed, but it cannot be imported or used on this machine."""

    code = "backend_broken"


class ModelLoadError(BackendError):
    """The model's files cannot be used: damaged, of an unsupported kind, or contradictory."""

    code = "model_load_failed"


class BadVectorError(BackendError):
    """The model gave a non-finite or zero vector for a text, even when it ran alone."""

    code = "bad_vector"


class WorkerError(EmberdError):
    """A model's worker process failed."""

    code = "worker"


class WorkerStartError(WorkerError):
    """The process never became ready."""

    code = "worker_start"


class WorkerCrashedError(WorkerError):
    """The process died twice on the same request."""

    code = "worker_crashed"


class StoreError(EmberdError):
    """A vector store cannot be read or changed; it is unchanged."""

    code = "store"


class NotAStoreError(StoreError):
    """The path is not a store of that kind, or its schema differs."""

    code = "not_a_store"


class StoreKindError(StoreError):
    """No installed kind of store has that name, or it has no such option."""

    code = "store_kind"


class StoreBusyError(StoreError):
    """Another process has the store locked."""

    code = "store_busy"


class BackupError(StoreError):
    """The backup of a store cannot be restored; store and backup are unchanged."""

    code = "store_backup"


class StoreRowsError(StoreError):
    """Some rows of the store cannot be embedded."""

    code = "store_rows"


class DiskFullError(StoreError):
    """There is not enough disk space for what has to be written."""

    code = "disk_full"


class MigrationError(StoreError):
    """The result of a migration was wrong, and was rolled back."""

    code = "migration"


class ServerError(EmberdError):
    """The command line could not reach or start a server."""

    code = "server"


class NoServerError(ServerError):
    """No server is running."""

    code = "no_server"


class PortTakenError(ServerError):
    """Something else is listening on the port."""

    code = "port_taken"


class ServiceError(ServerError):
    """The machine's service manager failed, or the service did not start."""

    code = "service"


def every_error() -> list[type[EmberdError]]:
    """Return all classes of the tree, parents before children."""
    found = [EmberdError]
    for cls in found:  # grows during the loop
        found.extend(cls.__subclasses__())
    return found


def from_code(code: str, message: str, hint: str | None, field: str | None = None) -> EmberdError:
    """Recreate an error from another process; an unknown code gives an `EmberdError`."""
    cls = next((cls for cls in every_error() if cls.code == code), EmberdError)
    return cls(message, hint=hint, field=field)
