"""The tree of Sonde's errors; the service's own branches are in `service.errors`.

SondeError
├── ModelError                a model cannot be loaded or run
│   ├── ModelSourceError      the source has nothing loadable
│   ├── UnsafeModelError      loading would need pickle or the model's own code
│   ├── ModelOutOfMemory      the batch does not fit the device
│   └── DeviceLost            the device stopped answering; only a new process helps
├── TextError                 a text or its tokens do not fit the model
│   ├── TextTooLong           more tokens than the model reads, and truncation is off
│   ├── NoTokens              a text in which the tokenizer finds no token
│   └── BadTokens             token ids outside the vocabulary
├── ImageError                an image cannot be decoded, or does not fit the model
│   ├── UnsupportedImage      not one of the formats that are read
│   └── ImageTooLarge         more bytes, pixels, frames or metadata than allowed
├── TensorError               a tensor does not fit the program's contract
└── RegistryError             the registry of trained models cannot do this
    ├── ArtifactError         a model directory differs from its manifest, or has files never loaded
    ├── BadName               an invalid name of a trained model or an alias
    ├── NotRegistered         no such name, version or alias
    ├── RegistryConflict      another change came first, or the version is in use
    ├── RegistryDamaged       a file of the registry is empty, lost or not ours
    └── RegistryBusy          another process changes the same name for too long
        └── LockLost          this process stood still, and another one took its lock over
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
    code = "model_error"


class ModelSourceError(ModelError):
    code = "model_source"


def source_error(name: str, message: str, param: str = "model") -> ModelSourceError:
    """What is wrong with the file or directory of a model."""
    return ModelSourceError(f"{name}: {message}", param=param)


class UnsafeModelError(ModelError):
    code = "unsafe_model"


class ModelOutOfMemory(ModelError):
    code = "out_of_memory"


class DeviceLost(ModelError):
    code = "device_lost"


class TextError(SondeError):
    code = "invalid_input"


class TextTooLong(TextError):
    code = "input_too_long"


class NoTokens(TextError):
    """A text in which the tokenizer finds no token."""

    code = "no_tokens"


class BadTokens(TextError):
    code = "invalid_tokens"


class ImageError(SondeError):
    code = "invalid_image"


class UnsupportedImage(ImageError):
    code = "unsupported_image"


class ImageTooLarge(ImageError):
    code = "image_too_large"


class TensorError(SondeError):
    code = "invalid_tensor"


class RegistryError(SondeError):
    code = "registry_error"


class ArtifactError(RegistryError):
    code = "invalid_artifact"


class BadName(RegistryError):
    code = "invalid_name"


class NotRegistered(RegistryError):
    code = "not_registered"


class RegistryConflict(RegistryError):
    code = "registry_conflict"


class RegistryDamaged(RegistryError):
    """A file of the registry is empty, lost, older than it was, or not one of ours."""

    code = "registry_damaged"


class RegistryBusy(RegistryError):
    """Another process changes the same name; the change can be repeated."""

    code = "registry_busy"


class LockLost(RegistryBusy):
    """This process stood still while it held a lock, and another one took the lock over; nothing was written."""


class Unsupported(Exception):
    """The packed forward pass does not support this model, so the general one is used.

    It is a signal between the two paths and not one of the errors for callers.
    """
