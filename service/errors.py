"""The service's errors: branches of the tree that `models.errors` begins.

SondeError
├── ModelError, TextError     see `models.errors`
├── RequestError              the caller's request cannot be served as it is
│   ├── MalformedBody         not JSON, not UTF-8
│   ├── InvalidRequest        JSON that breaks the contract
│   ├── UnsupportedMedia      another content type
│   ├── BodyTooLarge          more bytes than allowed
│   ├── ModelNotFound         no such model here
│   ├── WrongTask             the model does something else
│   ├── InvalidState          a stream's state that this model did not write
│   ├── JobNotFound           no such job
│   ├── JobState              the job is in a state in which that cannot be done
│   ├── FileMissing           no such file
│   ├── FileInUse             a job that is not finished needs it
│   └── IdempotencyConflict   the key was used with another body
├── AuthError
│   ├── MissingKey            no key, or an unknown one
│   └── ScopeDenied           the key may not do this
├── CapacityError             try again later
│   ├── Overloaded            the queue is full
│   ├── Unavailable           not ready, draining, or the device is gone
│   │   └── Unservable        a trained model that cannot be loaded here
│   └── DeadlineExceeded      the caller's time ran out first
├── ClientGone                the caller hung up; nobody reads the answer
├── BackendError              the model failed on this item
│   └── InvalidOutput         it answered with NaN, infinity or the wrong number of rows
├── StorageFull               no space left for files
├── LeaseLost                 the attempt is another worker's now
├── TargetError               the server that `sonde bench` is to measure does not answer as one of its kind
├── CannotListen              the port is taken, or the address is not this machine's
└── ConfigError               the settings make no sense
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
    """No model of that name is served here."""

    code = "model_not_found"


class WrongTask(RequestError):
    """The model exists, and does something else."""

    code = "wrong_task"


class InvalidState(RequestError):
    """A stream's state that this version of the model did not write, or that was changed since."""

    code = "invalid_state"


class AuthError(SondeError):
    """The caller may not do this."""

    code = "unauthorized"


class MissingKey(AuthError):
    """No API key came, or one that is not known."""

    code = "invalid_api_key"


class ScopeDenied(AuthError):
    """The API key is good, but not for this."""

    code = "insufficient_scope"


class CapacityError(SondeError):
    """Not now; `retry_after_s` is when to try again, in whole seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class Overloaded(CapacityError):
    """The queue is full."""

    code = "overloaded"


class Unavailable(CapacityError):
    """Not ready yet, draining, or broken for good."""

    code = "unavailable"


class Unservable(Unavailable):
    """A trained model that is registered and cannot be loaded here; the message says why."""

    code = "model_unservable"


class DeadlineExceeded(CapacityError):
    """The caller's time ran out before its answer was there."""

    code = "deadline_exceeded"


class ClientGone(SondeError):
    """The caller hung up."""

    code = "client_gone"


class BackendError(SondeError):
    """The model failed on this item, and on no other of its batch."""

    code = "backend_error"


class InvalidOutput(BackendError):
    """The model answered with numbers that are none, or with too few rows."""

    code = "invalid_output"


class CannotListen(SondeError):
    """The service's address cannot be listened on; seen on the command line alone."""

    code = "cannot_listen"


class ConfigError(SondeError):
    """The settings make no sense together."""

    code = "invalid_configuration"


class JobNotFound(RequestError):
    """No job of that id."""

    code = "job_not_found"


class JobState(RequestError):
    """The job is in a state in which that cannot be done to it."""

    code = "invalid_job_state"


class FileMissing(RequestError):
    """No file of that id."""

    code = "file_not_found"


class FileInUse(RequestError):
    """A job that is not finished needs the file."""

    code = "file_in_use"


class IdempotencyConflict(RequestError):
    """The Idempotency-Key was used with another body."""

    code = "idempotency_conflict"


class StorageFull(SondeError):
    """No space is left where files are kept."""

    code = "disk_full"


class LeaseLost(SondeError):
    """The attempt is another worker's now; never seen by callers."""

    code = "lease_lost"


class TargetError(SondeError):
    """The server to be measured does not answer as an OpenAI embeddings server does; seen on the command line alone."""

    code = "unfit_target"
