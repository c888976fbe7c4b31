"""CSV, which is not read -> the command that makes lines of JSON of just this file. Pure.

Columns are taken by the names in the header. Where there is none, no row is lost for it: they are
then the user, the time and the features, in this order.
"""

import re

_HEADER = re.compile(rb'\s*"?(user_?id|timestamp)"?[,;\t]', re.IGNORECASE)
_DELIMITERS = {b",": ",", b";": ";", b"\t": r"\t"}
_LONGEST_FIRST_LINE = 4096  # bytes that are looked at

_OPENED = "open('events.csv', encoding='utf-8-sig', newline='')"
_COMMAND = """CSV is not read: make lines of JSON of it{assumed}, such as with python3 -c \
"import csv, json; [print(json.dumps({{'user_id': {user}, 'timestamp': float({time}), \
'features': [float(x) for x in {features}]}})) for r in {rows}]" > events.ndjson, \
and send them with Content-Type: application/x-ndjson"""


def is_csv(body: bytes) -> bool:
    """Tell whether a body begins with the header of events in CSV."""
    return _HEADER.match(body) is not None


def advice(body: bytes) -> str:
    """Return what to type for a body of CSV."""
    first = body.lstrip()[:_LONGEST_FIRST_LINE].partition(b"\n")[0]
    delimiter = _DELIMITERS[max(_DELIMITERS, key=first.count)]
    arguments = _OPENED if delimiter == "," else f"{_OPENED}, delimiter='{delimiter}'"
    user = _name(first, rb"user_?id")
    time = _name(first, rb"timestamp")
    if not (user and time):
        return _COMMAND.format(
            assumed=" (without a header: user_id, timestamp, features)",
            user="r[0]",
            time="r[1]",
            features="r[2:]",
            rows=f"csv.reader({arguments}) if r",
        )
    return _COMMAND.format(
        assumed="",
        user=f"r.pop('{user}')",
        time=f"r.pop('{time}')",
        features="r.values()",
        rows=f"csv.DictReader({arguments})",
    )


def _name(header: bytes, pattern: bytes) -> str | None:
    """Return a column's name as the header writes it; None when it has none such."""
    found = re.search(rb"(?<![^\s\",;])" + pattern + rb"(?![^\s\",;])", header, re.IGNORECASE)
    return found[0].decode() if found else None
