"""The service's errors, as branches of the tree in `models.errors`.

SondeError
├── ModelError, TextError, ImageError   see `models.errors`
├── RequestError              the caller's request cannot be served as it is
│   ├── MalformedBody         not JSON, not UTF-8
│   ├── InvalidRequest        JSON that breaks the contract
│   │   └── MissingField      none of several fields of which one is needed
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
│   ├── ExpiredKey            a key whose time is over
│   ├── ScopeDenied           the key may not do this
│   ├── UnknownHost           without keys: a Host that is not this machine's
│   └── ForeignOrigin         without keys: a web page of another origin wants a change
├── CapacityError             try again later
│   ├── Overloaded            the queue is full
│   │   ├── RateLimited       the key has used its requests or tokens of this minute
│   │   └── TooManyJobs       a quota of unfinished jobs is used up
│   ├── Unavailable           not ready, draining, or the device is gone
│   │   └── Unservable        a trained model that cannot be loaded here
│   └── DeadlineExceeded      the caller's time ran out first
├── ClientGone                the caller hung up
├── BackendError              the model failed on this item
│   └── InvalidOutput         its output has NaN, infinity or the wrong number of rows
├── StorageFull               no space left for files
│   └── QuotaExceeded         a quota of stored bytes or rows is used up
├── LeaseLost                 another worker has the attempt now
├── TargetError               `sonde bench` cannot measure this server
├── CannotListen              the port is taken, or the address is not this machine's
└── ConfigError               the settings are wrong, or contradict each other
"""

from __future__ import annotations

from models.errors import SondeError


class RequestError(SondeError):
    code = "invalid_request"


class MalformedBody(RequestError):
    code = "malformed_body"


class InvalidRequest(RequestError):
    code = "invalid_value"

    @classmethod
    def at(cls, param: str, message: str) -> InvalidRequest:
        """The error of a parameter, which its message names first."""
        return cls(f"{param}: {message}", param=param)


class MissingField(InvalidRequest):
    """None of several fields is there, of which a request has one."""

    code = "missing_field"


class UnsupportedMedia(RequestError):
    code = "unsupported_media_type"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class ModelNotFound(RequestError):
    code = "model_not_found"


class WrongTask(RequestError):
    code = "wrong_task"


class InvalidState(RequestError):
    code = "invalid_state"


class AuthError(SondeError):
    code = "unauthorized"


class MissingKey(AuthError):
    code = "invalid_api_key"


class ExpiredKey(AuthError):
    code = "expired_api_key"


class ScopeDenied(AuthError):
    code = "insufficient_scope"


class UnknownHost(AuthError):
    code = "unknown_host"


class ForeignOrigin(AuthError):
    code = "foreign_origin"


class CapacityError(SondeError):
    """`retry_after_s`: when to try again, in whole seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class Overloaded(CapacityError):
    code = "overloaded"


class RateLimited(Overloaded):
    code = "rate_limit_exceeded"


class TooManyJobs(Overloaded):
    code = "too_many_jobs"


class Unavailable(CapacityError):
    code = "unavailable"


class Unservable(Unavailable):
    code = "model_unservable"


class DeadlineExceeded(CapacityError):
    code = "deadline_exceeded"


class ClientGone(SondeError):
    code = "client_gone"


class BackendError(SondeError):
    code = "backend_error"


class InvalidOutput(BackendError):
    code = "invalid_output"


class CannotListen(SondeError):
    code = "cannot_listen"


class ConfigError(SondeError):
    code = "invalid_configuration"


class JobNotFound(RequestError):
    code = "job_not_found"


class JobState(RequestError):
    code = "invalid_job_state"


class FileMissing(RequestError):
    code = "file_not_found"


class FileInUse(RequestError):
    code = "file_in_use"


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"


class StorageFull(SondeError):
    code = "disk_full"


class QuotaExceeded(StorageFull):
    code = "quota_exceeded"


class LeaseLost(SondeError):
    code = "lease_lost"


class TargetError(SondeError):
    code = "unfit_target"
