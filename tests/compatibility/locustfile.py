"""What `locust` runs: users who send an event at a time, with both of its clients."""

import os
import time

from locust import FastHttpUser, HttpUser, task


def _send(user: HttpUser | FastHttpUser) -> None:
    event = {
        "user_id": os.environ["EVENT_USER"],
        "timestamp": time.time(),
        "features": [0.1, 0.2, 0.3],
    }
    user.client.post("/predictions/scorer", json=event)


class Plain(HttpUser):
    """By requests."""

    @task
    def send(self) -> None:
        """Send one event."""
        _send(self)


class Fast(FastHttpUser):
    """By geventhttpclient."""

    @task
    def send(self) -> None:
        """Send one event."""
        _send(self)
