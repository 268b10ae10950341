"""`sonde config`: the settings in force, and what each comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping

from service.printable import printable


def show(settings: Mapping[str, object], origins: Mapping[str, str], *, as_json: bool) -> str:
    """The settings as a `sonde.toml` with their origins as comments, or as one JSON object."""
    if as_json:
        content = {name: {"value": value, "from": origins[name]} for name, value in settings.items()}
        return printable(json.dumps(content, default=str, ensure_ascii=False))
    # JSON's texts, numbers, lists and booleans are TOML's, too.
    lines = [(f"{name} = {json.dumps(value, default=str)}", origins[name]) for name, value in settings.items()]
    width = max(len(line) for line, _ in lines if len(line) < _WIDTH)
    return "\n".join(printable(f"{line:{width}}  # {origin}") for line, origin in lines)


_WIDTH = 60
