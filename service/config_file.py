"""`sonde.toml` in the working directory: settings by their names, such as `port = 9000`."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path

from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from service.errors import ConfigError

CONFIG_FILE = Path("sonde.toml")


class ConfigFile(TomlConfigSettingsSource):
    """The settings of the file; none without a file. Raises ConfigError for a broken one, and for an unknown name."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        try:
            super().__init__(settings, CONFIG_FILE)
        except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{CONFIG_FILE}: expected TOML such as port = 9000: {error}") from error
        for name in self.toml_data:
            if name not in settings.model_fields:
                nearest = difflib.get_close_matches(name.replace("-", "_"), settings.model_fields, 1)
                hint = f"did you mean {nearest[0]}?" if nearest else "'sonde config' lists them"
                raise ConfigError(f"{CONFIG_FILE}: {name}: expected the name of a setting; {hint}", param=name)
