"""The tree of Sonde's errors; the service's own branches are in `service.errors`.

SondeError
├── ModelError                a model cannot be loaded or run
│   ├── ModelSourceError      the source has nothing loadable
│   ├── UnsafeModelError      loading would need pickle or the model's own code
│   ├── ModelOutOfMemory      the batch does not fit the device
│   └── DeviceLost            the device stopped answering; only a new process helps
├── TextError                 a text or its tokens do not fit the model
│   ├── TextTooLong           more tokens than the model reads, and truncation is off
│   ├── NoTokens              a text in which the tokeniser finds no token
│   └── BadTokens             token ids outside the vocabulary
└── RegistryError             the registry of trained models cannot do this
    ├── ArtifactError         a model directory differs from its manifest
    ├── BadName               an invalid name of a trained model or an alias
    ├── NotRegistered         no such name, version or alias
    └── RegistryConflict      another change came first, or the version is in use
"""

from __future__ import annotations


class SondeError(Exception):
    """Base of Sonde's errors: a message, a stable `code`, and the parameter at fault if any."""

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ModelError(SondeError):
    """A model cannot be loaded or run."""

    code = "model_error"


class ModelSourceError(ModelError):
    """The source has nothing loadable."""

    code = "model_source"


class UnsafeModelError(ModelError):
    """Loading would need pickle or the model's own code."""

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
    """More tokens than the model reads, and truncation is off."""

    code = "input_too_long"


class NoTokens(TextError):
    """A text in which the tokeniser finds no token."""

    code = "no_tokens"


class BadTokens(TextError):
    """Token ids outside the model's vocabulary."""

    code = "invalid_tokens"


class RegistryError(SondeError):
    """The registry of trained models cannot do what was asked."""

    code = "registry_error"


class ArtifactError(RegistryError):
    """A model directory differs from its manifest, or has files that are never loaded."""

    code = "invalid_artifact"


class BadName(RegistryError):
    """An invalid name of a trained model or an alias."""

    code = "invalid_name"


class NotRegistered(RegistryError):
    """The registry has no such name, version or alias."""

    code = "not_registered"


class RegistryConflict(RegistryError):
    """Another change came first, or the version is in use."""

    code = "registry_conflict"


class Unsupported(Exception):
    """The packed forward pass does not support this model, so the general one is used.

    It is a signal between the two paths and not one of the errors for callers.
    """
