"""`sonde keys`: create, list and revoke API keys."""

from __future__ import annotations

import argparse
import re
import sys
import time
from datetime import datetime
from typing import Any

from service.auth import SCOPES, Key, Keyring
from service.config import Settings
from service.errors import ConfigError
from service.flags import add_command, add_flag, read_settings
from service.key_use import KeyUse


def add_keys(actions: Any) -> None:
    """Add the actions of `sonde keys` with their flags."""
    example = "sonde keys create --scope infer --scope train --name chatbot"
    create = add_command(actions, "create", "create a key", str(create_key.__doc__), [example])
    about = f"{', '.join(SCOPES)}; may be repeated (or commas)"
    create.add_argument("--scope", action="append", required=True, help=about)
    create.add_argument("--name", default="", help="a note for yourself")
    create.add_argument("--expires", metavar="TIME", help="like 12h, 90d or 4w; without it, the key does not expire")
    for what in ("requests", "tokens"):
        about = f"{what} that the key may use a minute; beyond it, calls answer 429"
        create.add_argument(f"--{what}-per-minute", type=_count, metavar="N", help=about)
    create.set_defaults(run=create_key)
    actions.add_parser("list", help="show keys", description=list_keys.__doc__).set_defaults(run=list_keys)
    revoke = actions.add_parser("revoke", help="revoke a key", description=revoke_key.__doc__)
    revoke.add_argument("id", help="the key's id, as 'list' shows it")
    revoke.set_defaults(run=revoke_key)
    for action in actions.choices.values():
        add_flag(action, "home", Settings.model_fields["home"])


def _count(text: str) -> int:
    """A number above 0, for argparse."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def create_key(parsed: argparse.Namespace) -> int:
    """Create a key and print its secret, once."""
    scopes = [scope.strip() for given in parsed.scope for scope in given.split(",")]
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ConfigError(f"--scope: expected some of {', '.join(SCOPES)}, got {', '.join(unknown)}")
    chosen = [scope for scope in SCOPES if scope in scopes]
    keyring = Keyring(read_settings(parsed).keys_file)
    is_first = not keyring.were_made
    key, secret = keyring.create(
        chosen,
        parsed.name,
        expires_in_s=None if parsed.expires is None else _duration_s(parsed.expires),
        requests_per_minute=parsed.requests_per_minute,
        tokens_per_minute=parsed.tokens_per_minute,
    )
    print(secret)
    print(f"{key.id} may {', '.join(key.scopes)}. Sonde shows the key itself only once, above.", file=sys.stderr)
    if is_first:
        print(_FIRST_KEY.format(file=keyring.path, lock=keyring.path.with_suffix(".lock")), file=sys.stderr)
    return 0


_FIRST_KEY = """This is the first key, so from now on every call needs one, also to a service that runs already.
Call with it:  export SONDE_API_KEY=…
To undo it:    rm {file} {lock}  and restart the service."""
_DURATION = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNIT_S = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def _duration_s(text: str) -> int:
    """The seconds of `12h`, `90d` or `4w`. Raises ConfigError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--expires: expected a number of hours, days or weeks like 12h, 90d or 4w, got {text[:20]!r}"
        )
    return int(found[1]) * _UNIT_S[found[2]]


def list_keys(parsed: argparse.Namespace) -> int:
    """Print each key: id, scopes, when it was made, last used and expires, its limits and its name."""
    from service.commands.screen import Screen

    settings = read_settings(parsed)
    keys, use = Keyring(settings.keys_file).keys, KeyUse(settings.home)
    if keys:
        header = ("id", "scopes", "created", "last used", "expires", "limits", "name")
        Screen(as_json=False).table(header, [_key_row(key, use.last(key.id)) for key in keys])
    return 0


def _key_row(key: Key, last: float | None) -> tuple[str, ...]:
    limits = {"requests": key.requests_per_minute, "tokens": key.tokens_per_minute}
    listed = ", ".join(f"{most} {what}/min" for what, most in limits.items() if most is not None)
    expires = "never" if key.expires is None else _day(key.expires)
    if key.has_expired(time.time()):
        expires = f"expired {expires}"
    used = "never" if last is None else _day(last)
    return key.id, ",".join(key.scopes), _day(key.created), used, expires, listed or "none", key.name


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def revoke_key(parsed: argparse.Namespace) -> int:
    """Revoke a key; running services notice by themselves."""
    settings = read_settings(parsed)
    if not Keyring(settings.keys_file).revoke(parsed.id):
        raise ConfigError(f"there is no key {parsed.id!r}; 'sonde keys list' shows them")
    KeyUse(settings.home).forget(parsed.id)
    return 0
