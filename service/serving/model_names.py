"""What models of the settings may be called."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from service.errors import ConfigError

# Jobs use this name for the base of sensor models, which is not a model.
SENSORS = "sensors"


def require_free_name(name: str, taken: Container[str]) -> None:
    """Raise ConfigError for a name that another model has, or that jobs give to sensors."""
    if name == SENSORS:
        raise ConfigError(
            f"jobs call the base of sensor models {SENSORS!r}: take another name, --model NAME=…", param="model"
        )
    if name in taken:
        raise ConfigError(f"two models are called {name!r}: name one of them with --model NAME=…", param="model")


def require_known(trusted: Iterable[str], programs: Sequence[str]) -> None:
    """Raise ConfigError for a name of `--trust-native` that no program has."""
    if unknown := [name for name in trusted if name not in programs]:
        known = ", ".join(programs) or "none"
        message = f"--trust-native: expected names of programs ({known}), got {', '.join(unknown)}"
        raise ConfigError(message, param="trust_native")
