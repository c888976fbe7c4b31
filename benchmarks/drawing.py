"""What was measured as one picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CLOSED_LOOP, MANY_USERS, Measurement
from benchmarks.contenders import CONTENDERS
from benchmarks.headlines import own_cpu

_COLOURS = {known.name: f"C{place}" for place, known in enumerate(CONTENDERS)}
_DASHES = {"json": "-", "ndjson": ":", "arrow": "--"}
_MARKERS = {1: "o", 2: "s"}  # by workers; more than two: a triangle


def draw(measurements: Sequence[Measurement], picture: Path) -> None:
    """Draw rates and costs; the file's suffix is its format."""
    import matplotlib as mpl  # noqa: PLC0415 - only the picture needs it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    found = [item for item in measurements if item.measured]
    figure, panels = plt.subplots(2, 2, figsize=(13, 10), layout="constrained")
    rates, costs, requests, users = panels.reshape(-1)
    curves: defaultdict[tuple[str, str, int], list[Measurement]] = defaultdict(list)
    for item in found:
        if item.kind == CLOSED_LOOP:
            curves[item.contender, item.case.partition("-")[0], item.workers].append(item)
    for (name, encoding, workers), items in curves.items():
        style = {
            "label": f"{name}, {encoding}" + f", {workers} workers" * (workers > 1),
            "color": _COLOURS.get(name),
            "linestyle": _DASHES[encoding],
            "marker": _MARKERS.get(workers, "^"),
        }
        sizes = [item.events_per_request for item in items]
        rates.plot(sizes, [item.events_per_second for item in items], **style)
        requests.plot(sizes, [item.requests_per_second for item in items], **style)
        costs.plot(sizes, [sum(item.cpu_per_million.values()) for item in items], **style)
    for panel, title in (
        (rates, "events/s"),
        (requests, "requests/s"),
        (costs, "CPU seconds a million events, all processes"),
    ):
        panel.set(xlabel="events a request", ylabel=title)
        if curves:
            panel.set(xscale="log", yscale="log")  # without data it would warn
    if curves:
        rates.legend(fontsize="small", loc="lower right")
    of_users = [item for item in found if item.kind == MANY_USERS]
    users.plot(
        [item.users for item in of_users],
        [own_cpu(item.cpu_per_million) for item in of_users],
        "o-",
    )
    users.set(
        xscale="log" if of_users else "linear",
        xlabel="users (medianserve, 1,000 events of JSON a request)",
        ylabel="CPU seconds a million events, workers and state service",
    )
    users.set_ylim(bottom=0)
    users.set_visible(bool(of_users))
    for panel in panels.reshape(-1):
        panel.grid(visible=True, alpha=0.3)
    figure.savefig(picture)
    plt.close(figure)
