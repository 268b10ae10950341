"""The service's errors, as branches of the tree in `models.errors`.

SondeError
├── ModelError, TextError     see `models.errors`
├── RequestError              the caller's request cannot be served as it is
│   ├── MalformedBody         not JSON, not UTF-8
│   ├── InvalidRequest        JSON that breaks the contract
│   ├── UnsupportedMedia      another content type
│   ├── BodyTooLarge          more bytes than allowed
│   ├── ModelNotFound         no such model here
│   ├── WrongTask             the model does another task
│   ├── InvalidState          a stream's state from another model, or a changed one
│   ├── JobNotFound           no such job
│   ├── JobState              the job's state does not allow this
│   ├── FileMissing           no such file
│   ├── FileInUse             an unfinished job needs it
│   └── IdempotencyConflict   the key was used with another body
├── AuthError
│   ├── MissingKey            no key, or an unknown one
│   └── ScopeDenied           the key may not do this
├── CapacityError             try again later
│   ├── Overloaded            the queue is full
│   ├── Unavailable           not ready, draining, or the device is gone
│   │   └── Unservable        a trained model that cannot be loaded here
│   └── DeadlineExceeded      the caller's time ran out first
├── ClientGone                the caller hung up
├── BackendError              the model failed on this item
│   └── InvalidOutput         its output has NaN, infinity or the wrong number of rows
├── StorageFull               no space left for files
├── LeaseLost                 another worker has the attempt now
├── TargetError               `sonde bench` cannot measure this server
├── CannotListen              the port is taken, or the address is not this machine's
└── ConfigError               the settings are wrong, or contradict each other
"""

from __future__ import annotations

from models.errors import SondeError


class RequestError(SondeError):
    """The caller's request cannot be served as it is."""

    code = "invalid_request"


class MalformedBody(RequestError):
    """The body is not JSON in UTF-8."""

    code = "malformed_body"


class InvalidRequest(RequestError):
    """The body is JSON but breaks the contract."""

    code = "invalid_value"


class UnsupportedMedia(RequestError):
    """The body's content type is not JSON."""

    code = "unsupported_media_type"


class BodyTooLarge(RequestError):
    """More bytes than the service reads."""

    code = "body_too_large"


class ModelNotFound(RequestError):
    """No model of that name is in service here."""

    code = "model_not_found"


class WrongTask(RequestError):
    """The model exists, and does another task."""

    code = "wrong_task"


class InvalidState(RequestError):
    """Another version of the model wrote the stream's state, or the state was changed."""

    code = "invalid_state"


class AuthError(SondeError):
    """The caller may not do this."""

    code = "unauthorized"


class MissingKey(AuthError):
    """The API key is missing or unknown."""

    code = "invalid_api_key"


class ScopeDenied(AuthError):
    """The API key is valid, but lacks the scope."""

    code = "insufficient_scope"


class CapacityError(SondeError):
    """The service cannot answer now; try again after `retry_after_s` whole seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class Overloaded(CapacityError):
    """The queue is full."""

    code = "overloaded"


class Unavailable(CapacityError):
    """The service is not ready yet, is draining, or has lost its device."""

    code = "unavailable"


class Unservable(Unavailable):
    """A registered model cannot be loaded here; the message says why."""

    code = "model_unservable"


class DeadlineExceeded(CapacityError):
    """The caller's time ran out before the answer was ready."""

    code = "deadline_exceeded"


class ClientGone(SondeError):
    """The caller hung up."""

    code = "client_gone"


class BackendError(SondeError):
    """The model failed on this item alone of its batch."""

    code = "backend_error"


class InvalidOutput(BackendError):
    """The model's output has NaN, infinity or the wrong number of rows."""

    code = "invalid_output"


class CannotListen(SondeError):
    """The service cannot listen on its address; only the command line shows this."""

    code = "cannot_listen"


class ConfigError(SondeError):
    """The settings are wrong, or contradict each other."""

    code = "invalid_configuration"


class JobNotFound(RequestError):
    """No job of that id."""

    code = "job_not_found"


class JobState(RequestError):
    """The job's state does not allow this."""

    code = "invalid_job_state"


class FileMissing(RequestError):
    """No file of that id."""

    code = "file_not_found"


class FileInUse(RequestError):
    """An unfinished job needs the file."""

    code = "file_in_use"


class IdempotencyConflict(RequestError):
    """An earlier request used the Idempotency-Key with another body."""

    code = "idempotency_conflict"


class StorageFull(SondeError):
    """No space is left for files."""

    code = "disk_full"


class LeaseLost(SondeError):
    """Another worker has the attempt now; callers never see this."""

    code = "lease_lost"


class TargetError(SondeError):
    """The server does not answer `sonde bench` as OpenAI embeddings servers do."""

    code = "unfit_target"
