"""The settings: flags beat environment variables, which beat `sonde.toml`, which beats the defaults written here."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from models.validation_messages import describe_fault
from service.config_file import CONFIG_FILE, ConfigFile
from service.errors import ConfigError

PREFIX = "SONDE_"
# Limits of the whole service: several processes divide them.
_DIVIDED = {"max_queued_items", "max_queued_tokens", "cache_mb"}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+", re.ASCII)
_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?", re.ASCII)
# Read by the examples and by clients.
_CLIENT_VARIABLES = {f"{PREFIX}URL", f"{PREFIX}API_KEY"}
# Kubernetes and Docker describe a service whose name begins with "sonde" by such names, or values.
_LINK_NAME = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")
# The suffix of exported programs.
_PROGRAM = ".pt2"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
# Characters of a wrong value that an error shows.
_LONGEST_SHOWN = 200


class Settings(BaseSettings):
    """All settings. Each is a flag (`--max-inputs`), a variable (`SONDE_MAX_INPUTS`) and a name in `sonde.toml`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        validate_by_name=True,
        alias_generator=lambda name: PREFIX + name.upper(),
    )

    host: str = Field("127.0.0.1", description="address to listen on; an address beyond loopback needs API keys")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    metrics_port: int = Field(0, ge=0, le=65535, description="second port for /metrics, without a key; 0 is off")
    grpc_port: int = Field(0, ge=0, le=65535, description="port of the Open Inference Protocol over gRPC; 0 is off")
    workers: int = Field(
        1, ge=1, description="server processes on one port; each loads the models and has its share of the cores"
    )
    fronts: int = Field(
        0, ge=0, le=64, description="processes for HTTP and tokenizing before one that computes; 0 is a single process"
    )
    home: Path = Field(Path(".sonde"), description="directory for keys and state")
    insecure: bool = Field(False, description="listen beyond loopback without keys, and serve every Host")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="networks (CIDR) of proxies whose X-Forwarded-For is believed; may be repeated (or commas)"
    )

    cors_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose web pages may call, like https://app.example, or * for all; may be repeated"
    )

    model: Annotated[tuple[str, ...], NoDecode] = Field(
        ("all-MiniLM-L6-v2",),
        min_length=1,
        description="directory, Hub id or .pt2 file, or NAME=it; may be repeated (the variable takes commas)",
    )
    registry_poll_s: float = Field(
        1.0, gt=0, le=3600, description="seconds between looks at the registry of fine-tuned models"
    )
    token_ids: Literal["refuse", "model", "cl100k_base", "o200k_base"] = Field(
        "refuse", description="vocabulary of token ids in OpenAI's embeddings; model is the model's own"
    )
    token_ids_file: str = Field("", description="the .tiktoken file of --token-ids; empty: as tiktoken finds it")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="device of the models")
    dtype: Literal["auto", "bfloat16", "float32", "int8"] = Field("auto", description="precision of the models")
    threads: int = Field(0, ge=0, description="PyTorch's CPU threads; 0 is PyTorch's own choice, within a CPU quota")
    runners: int = Field(0, ge=0, description="batches computed at once on a CPU, sharing its threads; 0 is up to four")
    tokenizer_threads: int = Field(0, ge=0, description="threads that tokenize; 0 is one per core, four at most")

    max_batch_tokens: int = Field(
        0,
        ge=0,
        description="tokens of one batch, padding included; 0 is 512 on a CPU, 1024 for images, and 16384 on a GPU",
    )
    max_batch_items: int = Field(256, ge=1, description="items of one batch")
    max_queued_items: int = Field(16_384, ge=1, description="inputs inside the service before new ones get 429")
    max_queued_tokens: int = Field(1_000_000, ge=1, description="tokens inside the service before new ones get 429")
    max_inputs: int = Field(2_048, ge=1, description="inputs of one request")
    max_readings: int = Field(100_000, ge=1, description="readings of one request")
    max_request_tokens: int = Field(300_000, ge=1, description="tokens of one request")
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="bytes of one request's body")
    max_image_bytes: int = Field(16 * 2**20, ge=1, description="bytes of one image, within --max-body-bytes")
    allow_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="hosts whose images are fetched by URL, like images.example or images.example:8443, or * for every "
        "public one; may be repeated (or commas); without any, URLs are refused",
    )
    trust_native: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names of programs whose compiled code is run; may be repeated (or commas); without any, packages "
        "of AOTInductor are refused",
    )
    compile: bool = Field(
        False, description="compile exported programs at the start, where a C++ compiler is here; takes minutes once"
    )
    max_image_pixels: int = Field(40_000_000, ge=1, description="pixels of one image, before it is scaled")
    cache_mb: int = Field(
        64, ge=0, description="megabytes of cached rows, and again for fitted reference sets; 0 is off"
    )

    keep_inputs: int = Field(
        0,
        ge=0,
        le=100_000,
        description="classified texts and images of each key to keep in memory for review; 0 is none",
    )

    database_url: str = Field("", description="postgresql://… for jobs of several hosts; empty is SQLite in the home")
    max_file_bytes: int = Field(512 * 2**20, ge=1, description="bytes of one uploaded file")
    max_key_jobs: int = Field(
        100, ge=0, description="unfinished jobs of one key before new ones get 429; 0 is no limit"
    )
    max_total_jobs: int = Field(1_000, ge=0, description="unfinished jobs of all keys; 0 is no limit")
    max_key_finished_jobs: int = Field(
        1_000, ge=0, description="finished jobs kept of one key; older unpromoted ones are removed; 0 is no limit"
    )
    max_key_bytes: int = Field(
        20 * 2**30, ge=0, description="bytes of one key's files before new ones get 507; 0 is no limit"
    )
    max_total_bytes: int = Field(200 * 2**30, ge=0, description="bytes of all keys' files; 0 is no limit")
    max_key_feedback: int = Field(
        200_000, ge=0, description="rows of one key's feedback before new ones get 507; 0 is no limit"
    )
    max_total_feedback: int = Field(2_000_000, ge=0, description="rows of all keys' feedback; 0 is no limit")
    shared: bool = Field(False, description="let every key with scope train see the jobs, files and feedback of all")
    org: str = Field(
        "local",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="your team, as in the names of fine-tuned models: ft:BASE:ORG:SUFFIX",
    )
    auto_promote: bool = Field(True, description="put a fine-tuned model that passes the gate in service at once")
    max_calibration_error: float = Field(
        0.15, gt=0, le=1, description="calibration error above which, beyond chance, the gate holds a classifier"
    )
    job_poll_s: float = Field(
        0.25, gt=0, description="seconds between a worker's looks for new jobs, and for a cancel or pause of its own"
    )
    job_lease_s: float = Field(
        15.0, gt=0, description="seconds without a sign of a worker until another one resumes its job"
    )
    job_attempts: int = Field(5, ge=1, description="attempts in a row that may fail without a new checkpoint")
    job_stop_s: float = Field(
        20.0, gt=0, description="seconds for a training process to write a checkpoint when it is paused or stopped"
    )

    max_trainer_memory: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="memory of a training process, in bytes or like 8GiB; 0 is four fifths of what there is",
    )

    default_timeout_s: float = Field(
        60.0, gt=0, description="seconds a request may take where it sets no X-Request-Timeout-Ms"
    )
    receive_timeout_s: float = Field(
        15.0, gt=0, description="seconds for a caller to send its headers, and each next part of its body"
    )
    min_receive_bytes_per_s: int = Field(
        4096, ge=1, description="slowest rate at which a body may arrive, measured over each receive timeout"
    )
    shutdown_s: float = Field(25.0, gt=0, description="seconds for open requests to finish after SIGTERM")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level to log")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="lines for a person or for a program; auto is console on a terminal"
    )
    access_log: bool = Field(True, description="log a line for each request")

    @field_validator("model", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(_split(value)) if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        """The networks, whether they came in one string or several."""
        try:
            return tuple(str(ipaddress.ip_network(part)) for part in _split(value))
        except ValueError as error:
            raise ValueError(f"expected networks like 10.0.0.0/8: {error}") from None

    @field_validator("cors_origin", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        """The origins as browsers send them, whether they came in one string or several."""
        return _split_matching(_ORIGIN, value, "expected origins such as https://app.example without a path, or *")

    @field_validator("allow_urls", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        """The hosts of URLs, whether they came in one string or several."""
        return _split_matching(_HOST, value, "expected hosts such as images.example without a scheme or a path, or *")

    @field_validator("trust_native", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """The names, whether they came in one string or several."""
        return tuple(_split(value))

    @field_validator("keep_inputs")
    @classmethod
    def _require_one_process(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("workers", 1) > 1:
            raise ValueError("expected 0 with several --workers, because each process would keep texts of its own")
        return value

    @property
    def loopback(self) -> bool:
        return self.host in _LOOPBACK

    @property
    def keys_file(self) -> Path:
        return self.home / "keys.json"

    @property
    def programs(self) -> tuple[str, ...]:
        """The models that are exported programs."""
        return tuple(spec for spec in self.model if spec.endswith(_PROGRAM))

    @property
    def text_models(self) -> tuple[str, ...]:
        """The other models."""
        return tuple(spec for spec in self.model if not spec.endswith(_PROGRAM))

    @property
    def autotune_file(self) -> Path:
        return self.home / "races.json"

    @property
    def compiled_directory(self) -> Path:
        return self.home / "compiled"

    @property
    def registry_directory(self) -> Path:
        return self.home / "models"

    def changed(self) -> dict[str, object]:
        """The settings that differ from their defaults; of the database's URL the address alone."""
        fields = type(self).model_fields
        return {name: value for name, value in self.shown().items() if getattr(self, name) != fields[name].default}

    def shown(self) -> dict[str, object]:
        """All settings; of the database's URL the address alone."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return values | ({"database_url": _address(self.database_url)} if self.database_url else {})

    def share(self, of: int) -> Settings:
        """Divide the limits that were set between `of` processes; defaults suit one process."""
        given = _DIVIDED & self.model_fields_set
        return self.model_copy(update={name: math.ceil(getattr(self, name) / of) for name in given})

    def within(self, quota: float | None, processors: int) -> Settings:
        """Take no more threads than a CPU quota allows, unless their number was set."""
        if self.threads or quota is None or quota >= processors:
            return self
        return self.model_copy(update={"threads": max(int(quota), 1)})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, variables and the file, the first of which counts."""
        return init_settings, env_settings, ConfigFile(settings_cls)

    @classmethod
    def origins(cls, flags: Mapping[str, Any]) -> dict[str, str]:
        """What each setting comes from: its flag, its variable, the file, or the default. Raises ConfigError."""
        file = ConfigFile(cls).toml_data
        given = {name: f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None}
        variables = {name: PREFIX + name.upper() for name in cls.model_fields if PREFIX + name.upper() in os.environ}
        return dict.fromkeys(cls.model_fields, "default") | dict.fromkeys(file, str(CONFIG_FILE)) | variables | given

    @classmethod
    def read(cls, flags: Mapping[str, Any]) -> Settings:
        """Combine flags (None: not given), variables and the file. Raises ConfigError naming a wrong or unknown one."""
        _require_known_variables(os.environ)
        try:
            settings = cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            first: Any = error.errors()[0]
            name = str(first["loc"][0]).removeprefix(PREFIX).lower() if first["loc"] else "settings"
            place = f"--{name.replace('_', '-')} (or {PREFIX}{name.upper()})"
            if cls.origins(flags).get(name) == str(CONFIG_FILE):
                place = f"{CONFIG_FILE}: {name}"
            message = f"{place}: {describe_fault(first)}, got {first['input']!r:.{_LONGEST_SHOWN}}"
            raise ConfigError(message, param=name) from error
        if settings.fronts and settings.workers > 1:
            message = f"--fronts or --workers: expected one of them, got {settings.fronts} and {settings.workers}"
            raise ConfigError(message, param="fronts")
        return settings


def _split(value: object) -> list[str]:
    """The parts of a setting that may be repeated, and whose variable has commas."""
    given = value if isinstance(value, list | tuple) else [value]
    return [part.strip() for text in given for part in str(text).split(",") if part.strip()]


def _split_matching(pattern: re.Pattern[str], value: object, expected: str) -> tuple[str, ...]:
    """The parts in lower case; each matches the pattern, or is `*`. Raises ValueError with what was expected."""
    parts = tuple(part.lower() for part in _split(value))
    if any(part != "*" and not pattern.fullmatch(part) for part in parts):
        raise ValueError(expected)
    return parts


def _require_known_variables(environment: Mapping[str, str]) -> None:
    known = _CLIENT_VARIABLES | {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(name for name in environment if name.startswith(PREFIX) and name not in known):
        if _LINK_NAME.search(name) or _LINK_VALUE.match(environment[name]):
            continue
        nearest = difflib.get_close_matches(name.upper(), known, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else "'sonde up --help' lists them"
        raise ConfigError(f"{name}: expected the variable of a setting; {hint}", param=name)


def _address(url: str) -> str:
    """A database's URL without user, password and options."""
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return "…"
    if "@" in (parts.host or ""):  # the end of a password that is not escaped
        return f"{parts.drivername}://…"
    return str(URL.create(parts.drivername, host=parts.host, port=parts.port, database=parts.database))
