"""Every error of ours, one tree (the service's own branches are in `service.errors`).

SondeError
├── ModelError                a model cannot be loaded or run
│   ├── ModelSourceError      nothing loadable at the place named
│   ├── UnsafeModelError      it would need pickle or code of its own
│   ├── ModelOutOfMemory      the batch does not fit the device
│   └── DeviceLost            the device is gone; only a new process helps
├── TextError                 a text or its tokens do not fit the model
│   ├── TextTooLong           more tokens than the model reads, and truncation is off
│   └── BadTokens             token ids outside the vocabulary
└── RegistryError             the registry of trained models cannot do this
    ├── ArtifactError         a model directory is not what its manifest says
    ├── BadName               no name that a trained model or an alias may have
    ├── NotRegistered         no such name, version or alias
    └── RegistryConflict      somebody was faster, or the version is in use
"""

from __future__ import annotations


class SondeError(Exception):
    """Base of every error of ours: a message for the caller, a stable `code`, and the parameter at fault if there is
    one.
    """

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ModelError(SondeError):
    """A model cannot be loaded or run."""

    code = "model_error"


class ModelSourceError(ModelError):
    """Nothing loadable is at the place named."""

    code = "model_source"


class UnsafeModelError(ModelError):
    """Loading would need pickle or code that the model brings along."""

    code = "unsafe_model"


class ModelOutOfMemory(ModelError):
    """The batch does not fit the device's memory."""

    code = "out_of_memory"


class DeviceLost(ModelError):
    """The device stopped answering; only a new process helps."""

    code = "device_lost"


class TextError(SondeError):
    """A text, or token ids, that the model cannot read."""

    code = "invalid_input"


class TextTooLong(TextError):
    """More tokens than the model reads, and truncation was switched off."""

    code = "input_too_long"


class BadTokens(TextError):
    """Token ids outside the model's vocabulary."""

    code = "invalid_tokens"


class RegistryError(SondeError):
    """The registry of trained models cannot do what was asked."""

    code = "registry_error"


class ArtifactError(RegistryError):
    """A model directory is not what its manifest says, or has something in it that is never loaded."""

    code = "invalid_artifact"


class BadName(RegistryError):
    """No name that a trained model or an alias may have."""

    code = "invalid_name"


class NotRegistered(RegistryError):
    """The registry has no such name, version or alias."""

    code = "not_registered"


class RegistryConflict(RegistryError):
    """Somebody else was faster, or what is to go is in use."""

    code = "registry_conflict"


class Unsupported(Exception):
    """This reader, or the forward pass behind it, does not do that; the message says what. Not an error: another
    path does.
    """
