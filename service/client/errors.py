"""The client's errors, a branch of the tree in `models.errors`.

SondeError
└── ClientError
    ├── BadInput            what was given cannot be sent: no JSON, or not a number
    ├── Unreachable         no answer: nothing listens, or the connection broke
    ├── UnexpectedAnswer    an answer that Sonde would not give
    └── Refused             the service answered with an error
        ├── Unauthorized    401, 403: no key, or one that may not do this
        ├── NotFound        404: no such model, job, file or route
        └── TryLater        429, 503: busy or not ready; `retry_after_s` says when
"""

from __future__ import annotations

from models.errors import SondeError


class ClientError(SondeError):
    code = "client_error"


class BadInput(ClientError):
    code = "bad_input"


class Unreachable(ClientError):
    code = "unreachable"


class UnexpectedAnswer(ClientError):
    code = "unexpected_answer"


class Refused(ClientError):
    """The message, code and parameter are the service's own."""

    def __init__(
        self, message: str, *, status: int, code: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class Unauthorized(Refused): ...


class NotFound(Refused): ...


class TryLater(Refused): ...


KINDS: dict[int, type[Refused]] = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 429: TryLater, 503: TryLater}
