"""All settings: one validated object. Flags beat environment variables, which beat the defaults written here."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ConfigError

PREFIX = "SONDE_"
# What bounds the service as a whole, where it is several processes.
_DIVIDED = {"max_queued_items", "max_queued_tokens", "cache_mb"}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Settings(BaseModel):
    """Every field is a flag (`--max-inputs`) and an environment variable (`SONDE_MAX_INPUTS`) of `sonde`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback, keys are needed")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="serve /metrics on a port of its own too, without a key; 0 is off"
    )
    workers: int = Field(
        1, ge=1, description="processes that serve, on one port; each loads the models and has its share of the cores"
    )
    home: Path = Field(Path(".sonde"), description="directory for keys and state")
    insecure: bool = Field(False, description="listen beyond loopback without keys")

    model: tuple[str, ...] = Field(
        ("all-MiniLM-L6-v2",),
        min_length=1,
        description=(
            "directory or hub id, or NAME=it; may be given several times (in the variable: separated by commas)"
        ),
    )
    registry_poll_s: float = Field(
        1.0, gt=0, le=3600, description="seconds between looks at the registry of trained models"
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="where models compute")
    dtype: Literal["auto", "bfloat16", "float32", "int8"] = Field("auto", description="precision they compute in")
    threads: int = Field(
        0, ge=0, description="threads PyTorch computes with on the CPU; 0 is PyTorch's own choice, within a CPU quota"
    )
    runners: int = Field(
        0, ge=0, description="batches computed at a time on a CPU, which share its threads; 0 takes up to four"
    )
    tokenizer_threads: int = Field(0, ge=0, description="threads that tokenise; 0 takes all cores, four at most")

    max_batch_tokens: int = Field(
        0,
        ge=0,
        description="tokens of one batch, with the padding where there is any; 0 takes 512 on a CPU and 16384 on a GPU",
    )
    max_batch_items: int = Field(256, ge=1, description="items of one batch")
    max_queued_items: int = Field(16_384, ge=1, description="inputs inside the service before new ones get 429")
    max_queued_tokens: int = Field(1_000_000, ge=1, description="tokens inside the service before new ones get 429")
    max_inputs: int = Field(2_048, ge=1, description="inputs of one request")
    max_readings: int = Field(100_000, ge=1, description="rows of records or of a series in one request")
    max_request_tokens: int = Field(300_000, ge=1, description="tokens of one request")
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="bytes of one request's body")
    cache_mb: int = Field(
        64, ge=0, description="megabytes of recent rows to keep, and as many of reference sets; 0 is off"
    )

    database_url: str = Field("", description="postgresql://… for jobs of several hosts; empty is SQLite in the home")
    max_file_bytes: int = Field(512 * 2**20, ge=1, description="bytes of one uploaded file")
    org: str = Field(
        "local",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="the team in the names of trained models, ft:BASE:ORG:SUFFIX",
    )
    auto_promote: bool = Field(True, description="put a trained model that passes the gate in service at once")
    max_calibration_error: float = Field(
        0.15, gt=0, le=1, description="expected calibration error above which a trained classifier is held"
    )
    job_poll_s: float = Field(
        0.25, gt=0, description="how often a worker looks for new jobs, and whether its job was cancelled or paused"
    )
    job_lease_s: float = Field(
        15.0, gt=0, description="a worker not heard of for so long is taken for dead, and its job is resumed by another"
    )
    job_attempts: int = Field(
        5, ge=1, description="attempts of a job that may die one after the other without a new checkpoint"
    )
    job_stop_s: float = Field(
        20.0, gt=0, description="time a training process has to write a checkpoint when it is paused or the worker ends"
    )

    default_timeout_s: float = Field(60.0, gt=0, description="time a request has where it sets no X-Request-Timeout-Ms")
    receive_timeout_s: float = Field(
        15.0, gt=0, description="time a caller has to send its headers, and each next part of its body"
    )
    min_receive_bytes_per_s: int = Field(
        4096, ge=1, description="slowest body that is waited for, over each receive timeout"
    )
    shutdown_s: float = Field(25.0, gt=0, description="time that requests in hand have after SIGTERM")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @property
    def loopback(self) -> bool:
        return self.host in _LOOPBACK

    @property
    def keys_file(self) -> Path:
        return self.home / "keys.json"

    @property
    def registry_directory(self) -> Path:
        return self.home / "models"

    def share(self, of: int) -> Settings:
        """For one of several processes: its part of each limit that was set. A default is what suits one process,
        and stays.
        """
        given = _DIVIDED & self.model_fields_set
        return self.model_copy(update={name: math.ceil(getattr(self, name) / of) for name in given})

    def within(self, quota: float | None, processors: int) -> Settings:
        """Where a quota gives the time of fewer processors than there are, with as many threads, unless their number
        was set.
        """
        if self.threads or quota is None or quota >= processors:
            return self
        return self.model_copy(update={"threads": max(int(quota), 1)})

    @classmethod
    def read(cls, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from flags (None means not given) and environment variables. Raises ConfigError naming what is
        wrong.
        """
        given = _from_environment(os.environ if environment is None else environment)
        given.update({name: value for name, value in (flags or {}).items() if value is not None})
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            flag = name.replace("_", "-")
            raise ConfigError(
                f"--{flag} (or {PREFIX}{name.upper()}): {first['msg']}, got {first['input']!r}", param=name
            ) from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = environment.get(PREFIX + name.upper())
        if value is not None:
            given[name] = tuple(part.strip() for part in value.split(",") if part.strip()) if name == "model" else value
    return given
