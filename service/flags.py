"""Settings as flags of a command: declared, read, and passed on to another process."""

from __future__ import annotations

import argparse
import functools
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from service.config import PREFIX, Settings
from service.errors import ConfigError

# The first setting of each group of flags, and the group's title.
_GROUPS = {
    "host": "addresses and processes",
    "model": "models and computing",
    "max_batch_tokens": "limits",
    "database_url": "jobs",
    "default_timeout_s": "time and logs",
}


def add_command(actions: Any, name: str, about: str, description: str, examples: Sequence[str]) -> Any:
    """Add a command, or an action of one, with its examples below its flags; its parser."""
    epilog = "\n".join(["examples:", *(f"  {example}" for example in examples)])
    shape = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)
    return actions.add_parser(name, help=about, description=description, epilog=epilog, formatter_class=shape)


def add_settings(command: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add settings as flags, in the groups of `_GROUPS`."""
    group = command.add_argument_group()
    for name, field in Settings.model_fields.items():
        if name in _GROUPS:
            group = command.add_argument_group(_GROUPS[name])
        if name in names:
            add_flag(group, name, field)


def add_flag(command: argparse.ArgumentParser | argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    """Add a setting as a flag, which Settings validates like the variable."""
    default = ", ".join(field.default) if isinstance(field.default, tuple) else str(field.default)
    shown_default = f"default {default}, " if default else ""
    about = f"{field.description} ({shown_default}or ${PREFIX}{name.upper()})".replace("%", "%%")
    kind: dict[str, Any] = {"metavar": name.rpartition("_")[2].upper()}
    if field.annotation is bool:
        kind = {"action": argparse.BooleanOptionalAction, "default": None} if field.default else {}
        kind = kind or {"action": "store_const", "const": True}
    elif typing.get_origin(field.annotation) is tuple:
        kind["action"] = "append"
    elif typing.get_origin(field.annotation) is typing.Literal:
        kind = {"choices": typing.get_args(field.annotation)}
    command.add_argument(f"--{name.replace('_', '-')}", help=about, **kind)


def given_flags(parsed: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """The flags that were given, of those settings, for another process."""
    flags: list[str] = []
    for name in names:
        flag, value = f"--{name.replace('_', '-')}", getattr(parsed, name)
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            flags += [f"{flag}={one}" for one in (value if isinstance(value, list) else [value])]
    return flags


def read_settings(parsed: argparse.Namespace) -> Settings:
    """The settings in force for a command. Raises ConfigError for a wrong one."""
    given = {name: getattr(parsed, name, None) for name in Settings.model_fields}
    return require_home_directory(Settings.read(given))


def require_home_directory(settings: Settings) -> Settings:
    """Return the settings. Raises ConfigError if their home is not a directory."""
    try:
        settings.keys_file.stat()
    except FileNotFoundError:
        return settings
    except OSError as error:
        message = f"--home (or {PREFIX}HOME): expected a directory, got {settings.home}: {error.strerror}"
        raise ConfigError(message, param="home") from error
    return settings
