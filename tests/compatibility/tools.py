"""The commands of curl that people send events with, and what is answered."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CurlCommand:
    """Arguments before the address, as typed in a folder that holds the files."""

    arguments: str
    status: int
    why: str = ""
    told: str = "Content-Type: application/json"  # what to type, where it is refused
    after: str = ""  # the address


_JSON = "-H 'Content-Type: application/json'"
_LOST = "curl calls it a form, and TorchServe loses a form's body: name the content type"

# events.json holds an object with `events`, events.ndjson one event a line, events.arrow a stream;
# events.json.gz and events.ndjson.zst are packed.
CURL = [
    CurlCommand(f"{_JSON} -d @events.json", 200),
    CurlCommand(f"{_JSON} --data-binary @events.json", 200),
    CurlCommand("-H 'Content-Type: application/x-ndjson' --data-binary @events.ndjson", 200),
    CurlCommand("-H 'Content-Type: application/octet-stream' --data-binary @events.json", 200),
    CurlCommand("-H 'Content-Type: application/octet-stream' --data-binary @events.ndjson", 200),
    CurlCommand(f"{_JSON} --data-binary @events.ndjson", 200),
    CurlCommand("-H 'Content-Type:' --data-binary @events.json", 200),
    CurlCommand("-H 'Content-Type:' --data-binary @events.ndjson", 200),
    CurlCommand("-H 'Content-Type:' --data-binary @events.arrow", 200),
    CurlCommand("-H 'Content-Type: application/octet-stream' --data-binary @events.arrow", 200),
    CurlCommand(
        "-H 'Content-Type: application/x-ndjson' -d @events.ndjson",
        200,
        "curl drops the line ends: objects that follow one another are taken too",
    ),
    CurlCommand(f"{_JSON} -d @events.ndjson", 200),
    CurlCommand("-d @events.json", 400, _LOST),
    CurlCommand("--data-binary @events.ndjson", 400, _LOST),
    CurlCommand("-T events.json", 200, "a PUT without a content type: its first bytes tell"),
    CurlCommand("-T events.ndjson", 200),
    CurlCommand("-T - < events.json", 200, "in chunks"),
    CurlCommand("-X POST -T events.json", 200),
    CurlCommand("-X POST -T events.ndjson -H 'Transfer-Encoding: chunked'", 200),
    CurlCommand("-X POST", 400, "no events", told="POST events"),
    CurlCommand("-F data=@events.json", 200),
    CurlCommand("-F file=@events.ndjson", 200),
    CurlCommand("-F upload=@events.ndjson", 200, "one part, of any name"),
    CurlCommand("-F 'events=@events.ndjson;type=application/json'", 200),
    CurlCommand("-F data=@events.arrow", 200),
    CurlCommand(
        "-F data=@events.json -F version=2",
        400,
        "TorchServe does not look at it there",
        told="/predictions/scorer/{version}",
    ),
    CurlCommand("-F data=@events.json -F dry_run=1", 400, "a header says it", told="X-Dry-Run: 1"),
    CurlCommand(
        "-F a=@events.json -F b=@events.json",
        400,
        "which of them is the body?",
        told="-F data=@events.json",
    ),
    CurlCommand(f"{_JSON} --data-binary @events.json.gz", 200, "its first bytes tell"),
    CurlCommand(f"--compressed {_JSON} -d @events.json", 200),
    CurlCommand(f"{_JSON} -H 'Content-Encoding: gzip' --data-binary @events.json.gz", 200),
    CurlCommand(
        "-H 'Content-Type: application/gzip' --data-binary @events.json.gz",
        200,
        "its first bytes tell",
    ),
    CurlCommand(
        "-H 'Content-Type: application/x-ndjson' -H 'Content-Encoding: zstd' "
        "--data-binary @events.ndjson.zst",
        200,
    ),
    CurlCommand(f"{_JSON} -H Expect: -d @events.json", 200),
    CurlCommand(f"{_JSON} -H 'Expect: 100-continue' -d @events.json", 200),
    CurlCommand(f"{_JSON} -H 'Transfer-Encoding: chunked' -d @events.json", 200),
    CurlCommand(f"--http1.0 {_JSON} -d @events.json", 200),
    CurlCommand(f"--http2 {_JSON} -d @events.json", 200, "answered by HTTP/1.1"),
    CurlCommand(f"{_JSON} -d @events.json", 200, after="/"),
    CurlCommand(f"{_JSON} -d @events.json", 200, after="?"),
    # When this is refused, say so in docs/errors.md, which tells of the limit.
    CurlCommand(
        f"{_JSON} -d @events.json",
        200,
        "and is counted: TorchServe drops the address's parameters",
        after="?dry_run=1",
    ),
]
