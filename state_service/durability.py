"""What is lost when, in words: the sentence that /stats shows."""

from state_service.service import StateService

_MEANINGS = {
    "journal": (
        "A stop, a kill or a crash of this process loses nothing that was acknowledged. A power "
        "loss may cost the last seconds."
    ),
    "full": "Neither a kill nor a power loss loses anything that was acknowledged.",
    "snapshot": (
        "A clean stop loses nothing. A kill or a crash loses what was accepted after the last "
        "snapshot: about {interval:g} seconds. A power loss may cost one snapshot more."
    ),
}


def durability_in_words(service: StateService) -> str:
    """Say what an acknowledged event survives at this moment."""
    mode = service.settings.durability
    if service.commits.error is not None:
        return "The journal cannot be written: events are refused. What was acknowledged is kept."
    if mode == "snapshot" and service.snapshots.error is not None:
        return (
            "Snapshots fail: a stop, a kill or a crash now loses what was accepted since the last "
            "one (snapshot.last_at)."
        )
    return _MEANINGS[mode].format(interval=service.settings.snapshot_interval_seconds)
