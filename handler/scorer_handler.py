"""TorchServe's entry point: glue between its `handle(data, context)` and the pipeline.

Nothing else knows TorchServe. It loads this file from the archive's root and calls `handle`
for every batch. An exception from `handle` would answer 503 to the whole batch, so the pipeline
never raises and always returns one answer a request.
"""

import inspect
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ts.metrics.metric_type_enum import MetricTypes
from ts.protocol import otf_message_handler

from handler.answering import Answer
from handler.breaker import CircuitBreaker
from handler.delivery import Recording, SpooledDelivery
from handler.draining import Drainer
from handler.errors import ModelError, reason_phrase
from handler.events import MAX_INTEGER_DIGITS
from handler.garbage import leave_loaded_alone
from handler.identity import ModelIdentity, identity
from handler.logs import configure_logging
from handler.pipeline import Pipeline
from handler.read_ahead import read_ahead
from handler.reading import Request
from handler.recording import StateClient
from handler.scoring import load_scorer
from handler.settings import HandlerSettings, SettingsError, load_settings, read_state_token
from handler.spool import Spool, SpoolSettingError
from handler.telemetry import SpoolGauges, Telemetry
from handler.transports import Transport, to_request, transport_of

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
        configure_logging(os.environ)
        try:
            _pipeline = _load(context)
        except (ModelError, SettingsError, SpoolSettingError) as error:
            # TorchServe reports a failed start to a log that is off: say it where it is seen.
            log.error("the handler does not start: %s", " ".join(str(error).split()))  # noqa: TRY400
            raise
        except Exception:
            log.exception("the handler does not start")
            raise
    if not data:
        return []
    arrived = [_arrived(item, index, context) for index, item in enumerate(data)]
    served = [index for index, (how, _) in enumerate(arrived) if how is not Transport.GRPC_SEQUENCE]
    answers = _pipeline.process([arrived[index][1] for index in served])
    bodies = [b""] * len(data)
    for index, answer in zip(served, answers, strict=True):
        bodies[index] = answer.body
        _set_envelope(answer, *arrived[index], index, context)
    for index in set(range(len(data))).difference(served):
        # TorchServe ends this call with an error by itself. An answer that comes after that can end
        # its thread for the worker, and nothing is answered again: give none. It goes by these ids.
        del context.request_ids[index]
    return bodies


def _set_envelope(
    answer: Answer, transport: Transport, request: Request, index: int, context: "Context"
) -> None:
    """Set what goes around the answer's body. Values must be str: another type kills the worker."""
    if transport is Transport.GRPC:
        # It has no place for a status or headers. But StreamPredictions ends by this one, and
        # TorchServe kills the worker when it is missing; in HTTP it would hang the client.
        context.set_response_header(index, "ts_stream_next", "false")
        return
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)
    if traceparent := request.headers.get("traceparent"):
        context.set_response_header(index, "traceparent", traceparent)
    if answer.status != 200:
        context.set_response_status(answer.status, reason_phrase(answer.status), index)


def _load(context: "Context") -> Pipeline:
    # TorchServe uses cores by running one worker process each: threads inside would fight.
    torch.set_num_threads(1)
    # Python turns digits into integers in quadratic time: 16 MiB of ids of 4,300 digits each, its
    # own limit, would take seconds. No id may be so long anyway, and no float64 has 640 digits.
    sys.set_int_max_str_digits(MAX_INTEGER_DIGITS)
    settings = load_settings(context.model_yaml_config, os.environ)
    if envelope := _service_envelope():
        raise SettingsError(
            f"service_envelope is {envelope!r}, which takes requests and answers apart: leave "
            "service_envelope out of config.properties, and TS_SERVICE_ENVELOPE out of the "
            "environment; KServe's addresses work without it"
        )
    # Bodies as they arrive, whatever config.properties says: TorchServe looks here each time.
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    log.setLevel(settings.log_level.upper())
    properties = context.system_properties
    weights = Path(properties["model_dir"]) / settings.weights
    gpu_id = properties.get("gpu_id")
    scorer = load_scorer(settings.factory, settings.feature_count, weights, gpu_id)
    manifest = context.manifest["model"]
    with weights.open("rb") as file:
        model = identity(context.model_name, manifest["modelVersion"], settings, file)
    log.info("the model is %s", model)
    _spare_the_front_end()
    leave_loaded_alone()
    delivery, gauges = _delivery(settings, model.in_brief())
    Telemetry(lambda name, value: _tell(context, name, value), gauges).start()
    return Pipeline(settings, scorer, delivery, model=model)


def _delivery(
    settings: HandlerSettings, model: ModelIdentity
) -> tuple[Recording, SpoolGauges | None]:
    token = read_state_token(settings)
    client = StateClient(settings.state_url, token, model)
    if not settings.spool:
        return client, None

    def spool() -> Spool:  # a connection for each of the three threads
        return Spool(Path(settings.spool), settings.spool_max_bytes, settings.spool_max_age_seconds)

    breaker = CircuitBreaker()
    delivery = SpooledDelivery(client, spool(), breaker, model)
    drained_by = StateClient(settings.state_url, token)
    Drainer(drained_by, spool(), breaker, settings.forward_timeout_seconds).start()
    gauges = SpoolGauges(spool(), breaker, settings.spool_max_bytes, settings.spool_max_age_seconds)
    return delivery, gauges


def _service_envelope() -> str | None:
    """Return the envelope that TorchServe is about to put around this handler.

    It tells no handler; but the function that loads this one has been told.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "ts.model_loader" and "envelope" in frame.f_locals:
            envelope: str | None = frame.f_locals["envelope"]
            return envelope
        frame = frame.f_back
    return None


def _tell(context: "Context", name: str, value: float) -> None:
    """Print a gauge as the line that TorchServe looks for."""
    context.metrics.get_metric(name, MetricTypes.GAUGE).add_or_update(value)


def _spare_the_front_end() -> None:
    """Read what it sends in few pieces, and send it no line a batch that it only throws away."""
    read_ahead(otf_message_handler)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ts.metrics").setLevel(logging.INFO)  # lines that it counts


def _arrived(item: dict[str, Any], index: int, context: "Context") -> tuple[Transport, Request]:
    headers = context.get_all_request_header(index) or {}
    transport = transport_of(headers)
    return transport, to_request(transport, item, headers, context.get_request_id(index))
