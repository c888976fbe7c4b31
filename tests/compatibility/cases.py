"""What operators ask of a TorchServe, and what it answers: by default, and ours where it differs.

`docs/compatibility.md` is made from these tables: `python -m tests.compatibility.document`.
"""

from dataclasses import dataclass

from tests.compatibility.servers import EVENT, Question


@dataclass(frozen=True)
class Facts:
    """What is certain about an answer: its status and words that it holds."""

    status: int
    holds: str


@dataclass(frozen=True)
class Case:
    """A question and its answers. Without `ours` both give the same, to the letter."""

    what: str
    question: Question
    plain: Facts
    ours: Facts | None = None
    why: str = ""


def _management(method: str, path: str) -> Question:
    return Question(method, "management", path)


def _inference(method: str, path: str, body: bytes = b"") -> Question:
    return Question(method, "inference", path, body)


NO_MODEL = Facts(404, "Model not found: nobody")
NO_VERSION = Facts(404, "Model version: 9.9 does not exist for model: scorer")
NOTHING_THERE = Facts(404, "Requested resource is not found")
NOT_ALLOWED = Facts(405, "Requested method is not allowed")
NO_KEY = Facts(400, "Token Authorization failed")
HEALTHY = Facts(200, '"status": "Healthy"')
SCALED = 'Workers scaled to {} for model: scorer"'

ECHOED, SCORED = Facts(200, '"user_id": "compatible"'), Facts(200, '"processed": 1')
IN_ITS_OWN_WORDS = "each model answers in its own words"
EMPTY = Facts(400, '"code": "empty_body"')
KEYS_ARE_OFF = "off by default, as only loopback is listened at: [access.md](access.md)"
NOT_EXPLAINED = Facts(400, '"code": "no_explanations"')
SCORES_ONLY = "the model scores and explains nothing; nothing is recorded"
NO_EVENTS = "a request without a body holds no events"

MANAGEMENT = [
    Case("list", _management("GET", "/models"), Facts(200, '"modelName": "scorer"')),
    Case("list a page", _management("GET", "/models?limit=1"), Facts(200, '"nextPageToken": "1"')),
    Case("list by no number", _management("GET", "/models?limit=x"), Facts(200, '"scorer"')),
    Case("describe, with the model's own words",
         _management("GET", "/models/scorer?customized=true"),
         Facts(200, '"customizedMetadata": {'), Facts(200, '"weights_sha256": '),
         IN_ITS_OWN_WORDS),
    Case("describe a model that is not there", _management("GET", "/models/nobody"), NO_MODEL),
    Case("describe a version that is not there", _management("GET", "/models/scorer/9.9"),
         NO_VERSION),
    Case("scale a model that is not there", _management("PUT", "/models/nobody?min_worker=1"),
         NO_MODEL),
    Case("scale a version that is not there", _management("PUT", "/models/scorer/9.9?min_worker=1"),
         NO_VERSION),
    Case("set the default", _management("PUT", "/models/scorer/1.0/set-default"),
         Facts(200, 'Default version successfully updated for model \\"scorer\\" to \\"1.0\\"')),
    Case("set a default that is not there", _management("PUT", "/models/scorer/9.9/set-default"),
         Facts(404, "Model version 9.9 does not exist for model scorer")),
    Case("register, the model API being off", _management("POST", "/models?url=scorer.mar"),
         NOT_ALLOWED),
    Case("unregister, the model API being off", _management("DELETE", "/models/scorer"),
         NOT_ALLOWED),
    Case("use a wrong method", _management("PATCH", "/models/scorer"), NOT_ALLOWED),
    Case("ask for what is not there", _management("GET", "/nothing"), NOTHING_THERE),
    Case("ask for the API", _management("OPTIONS", "/"), Facts(200, '"openapi": "3.0.1"')),
    Case("ask for the API by its other name", _management("GET", "/api-description"),
         Facts(200, '"openapi": "3.0.1"')),
    Case("list workflows", _management("GET", "/workflows"), Facts(200, '{"workflows": []}')),
    Case("ask for a new key with none", _management("GET", "/token?type=inference"),
         Facts(400, "Token Authentication failed"),
         NOTHING_THERE, "without token authorization there are no keys"),
    Case("manage without a key",
         Question("GET", "management", "/models", with_key=False),
         NO_KEY, Facts(200, '"modelName": "scorer"'),
         KEYS_ARE_OFF),
]  # fmt: skip

# In this order: each step finds what the one before left.
SCALING = [
    Case("scale up and wait",
         _management("PUT", "/models/scorer?min_worker=3&max_worker=3&synchronous=true"),
         Facts(200, SCALED.format(3))),
    Case("scale down and wait",
         _management("PUT", "/models/scorer?min_worker=2&max_worker=2&synchronous=true"),
         Facts(200, SCALED.format(2))),
    Case("scale one version",
         _management("PUT", "/models/scorer/1.0?min_worker=1&max_worker=1&synchronous=true"),
         Facts(200, "Workers scaled to 1 for model: scorer, version: 1.0")),
    Case("scale without waiting", _management("PUT", "/models/scorer?min_worker=1&max_worker=1"),
         Facts(202, "Processing worker updates...")),
    Case("scale by no number: it is taken for 1", _management("PUT", "/models/scorer?min_worker=x"),
         Facts(202, "Processing worker updates...")),
    Case("ask for more at least than at most",
         _management("PUT", "/models/scorer?min_worker=3&max_worker=2"),
         Facts(400, "max_worker cannot be less than min_worker.")),
]  # fmt: skip

INFERENCE = [
    Case("ask for health", _inference("GET", "/ping"), HEALTHY),
    Case("ask for health by POST", _inference("POST", "/ping"), HEALTHY),
    Case("ask for the API", _inference("OPTIONS", "/"), Facts(200, '"openapi": "3.0.1"')),
    Case("ask for the API by its other name", _inference("GET", "/api-description"),
         Facts(200, '"openapi": "3.0.1"')),
    Case("predict", _inference("POST", "/predictions/scorer", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("predict by a version", _inference("POST", "/predictions/scorer/1.0", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("predict by PUT", _inference("PUT", "/predictions/scorer", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("predict as Amazon SageMaker does", _inference("POST", "/invocations", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("predict by GET", _inference("GET", "/predictions/scorer"),
         Facts(200, '"body": ""'), EMPTY, NO_EVENTS),
    Case("predict by DELETE", _inference("DELETE", "/predictions/scorer"),
         Facts(200, '"body": ""'), EMPTY, NO_EVENTS),
    Case("predict by a model that is not there", _inference("POST", "/predictions/nobody", EVENT),
         NO_MODEL),
    Case("predict by a version that is not there",
         _inference("POST", "/predictions/scorer/9.9", EVENT), NO_VERSION),
    Case("explain", _inference("POST", "/explanations/scorer", EVENT),
         ECHOED, NOT_EXPLAINED, SCORES_ONLY),
    Case("explain by a model that is not there",
         _inference("POST", "/explanations/nobody", EVENT), NO_MODEL),
    Case("open the address itself", _inference("GET", "/"), NOT_ALLOWED),
    Case("ask for what is not there", _inference("GET", "/nothing"), NOTHING_THERE),
    Case("manage at the wrong port", _inference("GET", "/models/scorer"), NOTHING_THERE),
    Case("predict without a key",
         Question("POST", "inference", "/predictions/scorer", EVENT, with_key=False),
         NO_KEY, SCORED,
         KEYS_ARE_OFF),
    Case("ask for health without a key", Question("GET", "inference", "/ping", with_key=False),
         NO_KEY, HEALTHY, "as above; where it is on, `/ping` wants a key too"),
    Case("send what is not JSON", _inference("POST", "/predictions/scorer", b"{"),
         Facts(200, '{"body": "{"}'), Facts(400, '"code": "not_json"'),
         "TorchServe leaves it to the model; nothing that is not understood is counted"),
]  # fmt: skip

KSERVE = [
    Case("predict, version 1", _inference("POST", "/v1/models/scorer:predict", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("predict, version 2", _inference("POST", "/v2/models/scorer/infer", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("explain, version 1", _inference("POST", "/v1/models/scorer:explain", EVENT),
         ECHOED, NOT_EXPLAINED, SCORES_ONLY),
    Case("explain, version 2", _inference("POST", "/v2/models/scorer/explain", EVENT),
         ECHOED, NOT_EXPLAINED, SCORES_ONLY),
    Case("predict by a model that is not there",
         _inference("POST", "/v1/models/nobody:predict", EVENT), NO_MODEL),
    Case("infer by a model that is not there",
         _inference("POST", "/v2/models/nobody/infer", EVENT), NO_MODEL),
    Case("infer by a version", _inference("POST", "/v2/models/scorer/versions/1.0/infer", EVENT),
         NOTHING_THERE),
    Case("ask whether a model is ready", _inference("GET", "/v1/models/scorer"), NOTHING_THERE),
    Case("ask whether it lives", _inference("GET", "/v2/health/live"), NOTHING_THERE),
    Case("ask whether it is ready", _inference("GET", "/v2/health/ready"), NOTHING_THERE),
    Case("ask for the server's metadata", _inference("GET", "/v2"), NOTHING_THERE),
    Case("ask for the model's metadata", _inference("GET", "/v2/models/scorer"), NOTHING_THERE),
]  # fmt: skip

METRICS = [
    Case("scrape, the mode being the default",
         Question("GET", "metrics", "/metrics"), Facts(200, ""),
         Facts(200, "# TYPE ts_inference_requests_total counter"),
         "`metrics_mode=prometheus`: by default TorchServe writes metrics to a log alone"),
    Case("ask for what is not there", Question("GET", "metrics", "/nothing"), NOTHING_THERE),
    Case("scrape the port of predictions", _inference("GET", "/metrics"), NOTHING_THERE),
]  # fmt: skip

# With the model API and token authorization on, in this order.
VERSIONS = [
    Case("register a version",
         _management("POST", "/models?url=scorer-2.mar&initial_workers=1&synchronous=true"),
         Facts(200, 'Model \\"scorer\\" Version: 2.0 registered with 1 initial workers')),
    Case("register it again", _management("POST", "/models?url=scorer-2.mar"),
         Facts(409, "Model version 2.0 is already registered for model scorer")),
    Case("describe it", _management("GET", "/models/scorer/2.0"),
         Facts(200, '"batchSize": 1,'), Facts(200, '"batchSize": 32,'),
         "a registered version, too, has what its YAML says"),
    Case("predict by it", _inference("POST", "/predictions/scorer/2.0", EVENT),
         ECHOED, SCORED, IN_ITS_OWN_WORDS),
    Case("unregister the default", _management("DELETE", "/models/scorer/1.0"),
         Facts(403, "Cannot remove default version for model scorer")),
    Case("make it the default", _management("PUT", "/models/scorer/2.0/set-default"),
         Facts(200, 'Default version successfully updated for model \\"scorer\\" to \\"2.0\\"')),
    Case("unregister the old version", _management("DELETE", "/models/scorer/1.0"),
         Facts(200, 'Model \\"scorer\\" unregistered')),
    Case("unregister what is not there", _management("DELETE", "/models/nobody"), NO_MODEL),
    Case("register under another name, without workers",
         _management("POST", "/models?url=scorer.mar&model_name=other&initial_workers=0"),
         Facts(200, 'Model \\"other\\" Version: 1.0 registered with 0 initial workers')),
    Case("predict without workers", _inference("POST", "/predictions/other", EVENT),
         Facts(503, "has no worker to serve inference request")),
    Case("unregister it", _management("DELETE", "/models/other"),
         Facts(200, 'Model \\"other\\" unregistered')),
    Case("register nothing", _management("POST", "/models"),
         Facts(400, "Parameter url is required.")),
    Case("register a file that is not there", _management("POST", "/models?url=none.mar"),
         Facts(404, "Model not found at: none.mar")),
    Case("register a file outside the store", _management("POST", "/models?url=../scorer.mar"),
         Facts(404, "Relative path is not allowed in url: ../scorer.mar")),
    Case("register from an address", _management("POST", "/models?url=http://127.0.0.1:9/x.mar"),
         Facts(400, "Failed to download archive from"),
         Facts(404, "does not match any allowed URL(s)"),
         "`allowed_urls` is closed: an archive is code, and only the store's is loaded"),
]  # fmt: skip

# What a description says by default and here, where it is not the same.
DESCRIBED: dict[str, tuple[object, object, str]] = {
    "batchSize": (1, 32, "events of many requests are scored by one forward"),
    "maxBatchDelay": (100, 1, "milliseconds that the first of them waits for others"),
    "responseTimeout": (120, 30, "seconds until a worker that hangs is killed"),
    "clientTimeoutInMills": (0, 30000, "a request that waited so long is dropped"),
    "jobQueueStatus": (
        {"remainingCapacity": 100, "pendingRequests": 0},
        {"remainingCapacity": 1000, "pendingRequests": 0},
        "requests that may wait before new ones get a 503",
    ),
}

# Which key opens which port, where token authorization is on.
ALLOWED: dict[str, set[str]] = {
    "none": {"metrics"},
    "a wrong one": {"metrics"},
    "the inference key": {"inference", "metrics"},
    "the inference key without `Bearer`": {"metrics"},
    "the management key": {"management", "metrics"},
}

# What both have at `/metrics` with `metrics_mode=prometheus`.
METRIC_TYPES = {
    "Requests2XX": "counter",
    "Requests4XX": "counter",
    "Requests5XX": "counter",
    "ts_inference_requests_total": "counter",
    "ts_inference_latency_microseconds": "counter",
    "ts_queue_latency_microseconds": "counter",
    "QueueTime": "gauge",
    "WorkerThreadTime": "gauge",
    "WorkerLoadTime": "gauge",
    "PredictionTime": "gauge",
}
# What a plain one has besides; ours has those of the handler, `medianserve_…`.
MACHINE_METRICS = {
    "CPUUtilization",
    "MemoryUsed",
    "MemoryAvailable",
    "MemoryUtilization",
    "DiskUsage",
    "DiskAvailable",
    "DiskUtilization",
    "GPUMemoryUsed",
    "GPUMemoryUtilization",
    "GPUUtilization",
    "HandlerTime",
}
