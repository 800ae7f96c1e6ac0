"""Every failure a user can meet, as one tree.

EmberdError
├── ConfigError                   a setting is missing or malformed
├── UnknownModelError             no model or alias has that name
├── RequestError                  the caller asked for something that cannot be done
│   ├── MalformedBodyError            not JSON, not UTF-8, or nested too deep
│   ├── MediaTypeError                the body is not declared as JSON
│   │   └── ContentCodingError            the body is compressed
│   ├── WrongShapeError               JSON of the wrong shape; the field is named
│   ├── NoTextsError                  an empty list of texts
│   ├── TokenIdsError                 token ids instead of texts
│   ├── BadOptionError                an option out of range
│   ├── TextTooLongError              `truncate: false` and a text too long
│   ├── TooLargeError                 the body or the number of texts is over the limit
│   ├── UnauthorizedError             a token is asked for and missing or wrong
│   ├── ForbiddenError                a Host or Origin that is not this server's
│   └── FingerprintMismatchError      the caller expects another vector space
├── UnavailableError              nothing is wrong with the request; later it may work
│   ├── SourceError                   no source of the model can be reached
│   ├── NoRoomError                   other models fill the memory until the deadline
│   ├── QueueFullError                too many texts are waiting
│   ├── SpaceChangingError            the model became another one more than once meanwhile
│   ├── ShuttingDownError             the server is going away
│   └── DeadlineError                 the request's deadline passed
├── BackendError
│   ├── BackendMissingError           no installed plugin has that name
│   ├── BackendBrokenError            the plugin is installed and cannot be imported or used here
│   ├── ModelLoadError                the model's files cannot be used
│   └── BadVectorError                the model gave no finite vector for a text
├── WorkerError
│   ├── WorkerStartError              the process never became ready
│   └── WorkerCrashedError            the process died twice on the same request
├── StoreError                    a vector store cannot be read or changed; it is as it was
│   ├── NotAStoreError                the path is no store of that kind, or has another schema
│   ├── StoreKindError                no installed kind of store has that name or option
│   ├── StoreBusyError                another process has it locked
│   ├── BackupError                   its backup cannot be restored; both are as they were
│   ├── StoreRowsError                some of its rows cannot be embedded
│   ├── DiskFullError                 there is not enough room for what has to be written
│   └── MigrationError                what was done is not right, and was taken back
└── ServerError                   the command line and the server did not find each other
    ├── NoServerError                 no server is running
    ├── PortTakenError                something else listens on the port
    └── ServiceError                  the machine's service manager did not do what was asked

Knows nothing of HTTP or exit codes: `api.errors` and `cli.main` decide those. A worker sends
`code`, `message` and `hint` over the wire and `from_code` makes the same error again.
"""

from typing import ClassVar


class EmberdError(Exception):
    """A failure with a stable code, one sentence, and the next thing to try.

    `field` names the part of the request that is wrong, where one is.
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
    """The caller asked for something that cannot be done."""

    code = "bad_request"


class MalformedBodyError(RequestError):
    """The body is not JSON, not UTF-8, or nested too deep."""

    code = "malformed_body"


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"


class ContentCodingError(MediaTypeError):
    """The body is compressed, which is not read."""

    code = "unsupported_coding"


class WrongShapeError(RequestError):
    """Well-formed JSON of the wrong shape; the message names the field."""

    code = "wrong_shape"


class NoTextsError(RequestError):
    """The list of texts is empty."""

    code = "no_texts"


class TokenIdsError(RequestError):
    """Token ids instead of texts: another tokenizer's would embed as garbage."""

    code = "token_ids"


class BadOptionError(RequestError):
    """An option is out of range for this model."""

    code = "bad_option"


class TextTooLongError(RequestError):
    """A text has too many tokens and the caller forbade cutting it."""

    code = "text_too_long"


class TooLargeError(RequestError):
    """The body or the number of texts is over the limit."""

    code = "too_large"


class UnauthorizedError(RequestError):
    """A token is configured, and the request has none or a wrong one."""

    code = "unauthorized"


class ForbiddenError(RequestError):
    """The Host or Origin header is not one this server answers."""

    code = "forbidden"


class FingerprintMismatchError(RequestError):
    """The caller expects vectors of another space than the model gives."""

    code = "fingerprint_mismatch"


class UnavailableError(EmberdError):
    """Nothing is wrong with the request; it may work later."""

    code = "unavailable"


class SourceError(UnavailableError):
    """No source of the model can be reached."""

    code = "model_unavailable"


class NoRoomError(UnavailableError):
    """Other models fill the memory and none could leave before the deadline."""

    code = "no_room"


class QueueFullError(UnavailableError):
    """Too many texts are waiting already."""

    code = "queue_full"


class SpaceChangingError(UnavailableError):
    """The model's vectors became those of another space, and again, before the answer was whole."""

    code = "space_changing"


class ShuttingDownError(UnavailableError):
    """The server is going away."""

    code = "shutting_down"


class DeadlineError(UnavailableError):
    """The request's deadline passed; a download or start under way goes on."""

    code = "deadline"


class BackendError(EmberdError):
    """A backend cannot do its work."""

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
    """The model gave a non-finite or zero vector for a text, alone too."""

    code = "bad_vector"


class WorkerError(EmberdError):
    """A model's worker process did not do its work."""

    code = "worker"


class WorkerStartError(WorkerError):
    """The process never became ready."""

    code = "worker_start"


class WorkerCrashedError(WorkerError):
    """The process died twice on the same request."""

    code = "worker_crashed"


class StoreError(EmberdError):
    """A vector store cannot be read or changed; it is as it was."""

    code = "store"


class NotAStoreError(StoreError):
    """The path is no store of that kind, or its schema is another one."""

    code = "not_a_store"


class StoreKindError(StoreError):
    """No installed kind of store has that name, or it has no such option."""

    code = "store_kind"


class StoreBusyError(StoreError):
    """Another process has the store locked."""

    code = "store_busy"


class BackupError(StoreError):
    """The backup of a store cannot be restored; store and backup are as they were."""

    code = "store_backup"


class StoreRowsError(StoreError):
    """Some rows of the store cannot be embedded."""

    code = "store_rows"


class DiskFullError(StoreError):
    """There is not enough room on the disk for what has to be written."""

    code = "disk_full"


class MigrationError(StoreError):
    """What a migration wrote is not right, and was taken back."""

    code = "migration"


class ServerError(EmberdError):
    """The command line and the server did not find each other."""

    code = "server"


class NoServerError(ServerError):
    """No server is running."""

    code = "no_server"


class PortTakenError(ServerError):
    """Something else listens on the port."""

    code = "port_taken"


class ServiceError(ServerError):
    """The machine's service manager did not do what was asked, or the service did not start."""

    code = "service"


def every_error() -> list[type[EmberdError]]:
    """Return all classes of the tree, parents before children."""
    found = [EmberdError]
    for cls in found:  # grows while it is walked
        found.extend(cls.__subclasses__())
    return found


def from_code(code: str, message: str, hint: str | None) -> EmberdError:
    """Make the error again that another process described; an unknown code is an `EmberdError`."""
    cls = next((cls for cls in every_error() if cls.code == code), EmberdError)
    return cls(message, hint=hint)
