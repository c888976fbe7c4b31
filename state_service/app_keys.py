"""What the aiohttp application carries, under typed keys."""

import asyncio

from aiohttp import web

from state_service.census import Census
from state_service.everybody import Everybody
from state_service.service import StateService

SERVICE = web.AppKey("SERVICE", StateService)
BACKGROUND: web.AppKey[asyncio.Task[None]] = web.AppKey("BACKGROUND", asyncio.Task)
"""Restoring, then snapshotting for ever: it ends only with the service or by failing."""
EVERYBODY = web.AppKey("EVERYBODY", Everybody)
CENSUS = web.AppKey("CENSUS", Census)
