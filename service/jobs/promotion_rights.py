"""Whether a job's version may be promoted by itself: its key owns the name, was granted it, or is an admin's."""

from __future__ import annotations

import logging
import time

from models.errors import RegistryError
from models.registry.registry import Registry
from service.auth import ANYONE, Key, Keyring
from service.errors import ConfigError
from service.jobs.records import Job

log = logging.getLogger(__name__)

_BY_HAND = "an admin promotes the version"


class PromotionRights:
    """Asks at the time of a promotion, so that a key revoked or a grant taken back since counts.

    Without keys everything is allowed. With `shared`, every key is of one team.
    """

    def __init__(self, registry: Registry, keyring: Keyring, *, shared: bool) -> None:
        self._registry = registry
        self._keyring = keyring
        self._shared = shared

    def objection(self, job: Job) -> str | None:
        """Why a version of this job stays held, and what to do; None where it may be promoted."""
        try:
            key = self._key_of(job)
        except ConfigError as error:
            # The message names a path of this machine, so it stays out of the job.
            log.warning("cannot read the API keys: %s", error.message)
            return f"the API keys cannot be read, see the worker's log: {_BY_HAND}"
        if key is None:
            return _describe_lost_key(job)
        if self._shared or key.allows("admin"):
            return None
        try:
            ownership = self._registry.ownership(job.name)
        except RegistryError as error:
            log.warning("cannot read the owner of a name: %s", error.message, extra={"model": job.name})
            ownership = None
        if ownership is None or (ownership.owner is None and not ownership.grants):
            how = f"PUT /v1/models/{job.name}/owner"
            return f"{job.name} has no owner: {_BY_HAND}, or gives the name to a key ({how})"
        if ownership.includes(key.id):
            return None
        how = f"PUT /v1/models/{job.name}/grants/{key.id}"
        return f"its key, {key.id}, does not own {job.name}: {_BY_HAND}, or grants the name to the key ({how})"

    def _key_of(self, job: Job) -> Key | None:
        """The key that started a job; None for one that is not in force. Raises ConfigError."""
        keys = self._keyring.keys
        if not keys and not self._keyring.were_made:
            return ANYONE
        return next((key for key in keys if key.id == job.owner and not key.has_expired(time.time())), None)


def _describe_lost_key(job: Job) -> str:
    if job.owner in (None, ANYONE.id):
        return f"its job was started without a key, and keys are in use now: {_BY_HAND}"
    return f"its key, {job.owner}, was revoked or has expired: {_BY_HAND}"
