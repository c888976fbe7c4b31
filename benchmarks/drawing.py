"""What was measured as one picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CLOSED_LOOP, MANY_USERS, Measurement
from benchmarks.headlines import own_cpu


def draw(measurements: Sequence[Measurement], picture: Path) -> None:
    """Draw rates and costs; the file's suffix is its format."""
    import matplotlib as mpl  # noqa: PLC0415 - only the picture needs it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    found = [item for item in measurements if item.measured]
    figure, panels = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    rates, costs, requests, users = panels.reshape(-1)
    curves: defaultdict[str, list[Measurement]] = defaultdict(list)
    for item in found:
        if item.kind == CLOSED_LOOP:
            encoding = item.case.partition("-")[0]
            workers = f", {item.workers} workers" if item.workers > 1 else ""
            curves[f"{item.contender}, {encoding}{workers}"].append(item)
    for label, items in curves.items():
        sizes = [item.events_per_request for item in items]
        rates.plot(sizes, [item.events_per_second for item in items], "o-", label=label)
        requests.plot(sizes, [item.requests_per_second for item in items], "o-", label=label)
        cpu = [sum(item.cpu_per_million.values()) for item in items]
        costs.plot(sizes, cpu, "o-", label=label)
    for panel, title in (
        (rates, "events/s"),
        (requests, "requests/s"),
        (costs, "CPU seconds a million events, all processes"),
    ):
        panel.set(xscale="log", yscale="log", xlabel="events a request", ylabel=title)
    rates.legend(fontsize="small")
    of_users = [item for item in found if item.kind == MANY_USERS]
    users.plot(
        [item.users for item in of_users],
        [own_cpu(item.cpu_per_million) for item in of_users],
        "o-",
    )
    users.set(
        xscale="log",
        xlabel="users (1,000 events of JSON a request)",
        ylabel="CPU seconds a million events, workers and state service",
    )
    users.set_ylim(bottom=0)
    for panel in panels.reshape(-1):
        panel.grid(visible=True, alpha=0.3)
    figure.savefig(picture)
    plt.close(figure)
