"""TorchServe's entry point: glue between its `handle(data, context)` and the pipeline.

Nothing else knows TorchServe. It loads this file from the archive's root and calls `handle`
for every batch. An exception from `handle` would answer 503 to the whole batch, so the pipeline
never raises and always returns one answer a request.
"""

import logging
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from handler.garbage import leave_loaded_alone
from handler.pipeline import Pipeline
from handler.reading import Request
from handler.recording import StateClient
from handler.scoring import ModelError, load_scorer
from handler.settings import SettingsError, load_settings

log = logging.getLogger("handler")

if TYPE_CHECKING:
    from ts.context import Context

_pipeline: Pipeline | None = None


def handle(data: list[dict[str, Any]] | None, context: "Context") -> list[bytes]:
    """Answer one TorchServe batch: exactly one body an item of `data`.

    TorchServe's first call has `data` None: load the model. An error then is in the worker's log.
    """
    global _pipeline  # noqa: PLW0603 - a module-level handler has no object to keep it in
    if _pipeline is None:
        _log_to_stderr()
        try:
            _pipeline = _load(context)
        except (ModelError, SettingsError) as error:
            # TorchServe reports a failed start to a log that is off: say it where it is seen.
            log.error("the model does not load: %s", " ".join(str(error).split()))  # noqa: TRY400
            raise
        except Exception:
            log.exception("the model does not load")
            raise
    if not data:
        return []
    requests = [_request(item, index, context) for index, item in enumerate(data)]
    answers = _pipeline.process(requests)
    for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        # Values must be str: another type kills the worker.
        context.set_response_content_type(index, answer.content_type)
        for name, value in answer.headers.items():
            context.set_response_header(index, name, value)
        if traceparent := request.headers.get("traceparent"):
            context.set_response_header(index, "traceparent", traceparent)
        if answer.status != 200:
            context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, index)
    return [answer.body for answer in answers]


def _load(context: "Context") -> Pipeline:
    # TorchServe uses cores by running one worker process each: threads inside would fight.
    torch.set_num_threads(1)
    settings = load_settings(context.model_yaml_config, os.environ)
    properties = context.system_properties
    scorer = load_scorer(
        settings.factory,
        settings.features,
        Path(properties["model_dir"]) / settings.weights,
        properties.get("gpu_id"),
    )
    leave_loaded_alone()
    return Pipeline(settings, scorer, StateClient(settings.state_url))


def _request(item: dict[str, Any], index: int, context: "Context") -> Request:
    """Translate TorchServe's item: form posts have no `body` key, header names keep their case."""
    body = item.get("body")
    headers = {
        name.lower(): value
        for name, value in (context.get_all_request_header(index) or {}).items()
        if isinstance(value, str)
    }
    return Request(
        bytes(body) if isinstance(body, bytes | bytearray) else None,
        headers,
        context.get_request_id(index),
    )


def _log_to_stderr() -> None:
    """Keep stdout, which TorchServe parses as a control channel, free of our messages."""
    if not log.handlers:
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        log.addHandler(stream)
        log.setLevel(logging.INFO)
        log.propagate = False
