"""What each of several server processes needs: imported once, in the process that they are forked from.

Nothing here computes, opens a file that stays open, or starts a thread.
"""
# ruff: noqa: F401

from __future__ import annotations

import sqlalchemy.dialects.sqlite
import uvicorn.lifespan.off
import uvicorn.loops.auto
import uvicorn.loops.uvloop

import models.loader
import models.runtime.device
import service.api.server
import service.bench.flags
import service.commands.keys
import service.home
import service.jobs.storage
import service.rpc
import service.serve
import service.serving.engine_server
import service.serving.model_manager
import service.serving.remote_models
from service.api.app import all_routes

all_routes()
