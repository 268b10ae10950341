"""The names of trained models and aliases, and the directories of names."""

from __future__ import annotations

import re

from models.errors import BadName

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAME = re.compile(rf"ft:{_PART}:{_PART}:{_PART}", re.ASCII)
_WITH_VERSION = re.compile(rf"(ft:{_PART}:{_PART}:{_PART}):v([1-9][0-9]{{0,8}})", re.ASCII)
_ALIAS = re.compile(_PART, re.ASCII)
# For OpenAPI.
ALIAS_PATTERN = _PART
NAME_PATTERN = rf"ft:{_PART}:{_PART}:{_PART}(:v[1-9][0-9]{{0,8}})?"
_SEPARATOR = re.compile(r"--(?!-)")


def model_name(base: str, org: str, suffix: str) -> str:
    """The name of a model trained on `base`, without base's owner. Raises BadName."""
    name = f"ft:{base.rpartition('/')[2]}:{org}:{suffix}"
    check_name(name)
    return name


def check_name(name: str) -> None:
    """Raise BadName unless `name` is valid for a trained model."""
    # "--" stands for ":" on disk, so a part with it would read as two.
    if not _NAME.fullmatch(name) or "--" in name:
        raise BadName(
            f"expected ft:BASE:ORGANISATION:SUFFIX, each part 1 to 64 letters, digits, '.', '_', '-' without '--', "
            f"got {name[:300]!r}",
            param="model",
        )


def parse_name(asked: str) -> tuple[str, int | None]:
    """`ft:a:b:c` or `ft:a:b:c:v3` → (name, version). Raises BadName."""
    versioned = _WITH_VERSION.fullmatch(asked)
    name, version = (versioned[1], int(versioned[2])) if versioned else (asked, None)
    check_name(name)
    return name, version


def is_alias(text: str) -> bool:
    """Whether a text could be an alias."""
    return _ALIAS.fullmatch(text) is not None


def check_alias(alias: str) -> None:
    """Raise BadName unless `alias` is valid."""
    if not is_alias(alias):
        raise BadName(f"an alias has 1 to 64 letters, digits, '.', '_', '-', got {alias[:300]!r}", param="alias")


def directory_of(name: str) -> str:
    """The directory of a name, of characters that `check_name` allows. Raises BadName."""
    check_name(name)
    return name.replace(":", "--")


def name_of(directory: str) -> str | None:
    """The name of a directory, or None for other directories."""
    name = _SEPARATOR.sub(":", directory)
    return name if _NAME.fullmatch(name) and "--" not in name else None
