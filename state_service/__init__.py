"""The sidecar that remembers: every user's last five minutes of scores, and their exact median.

Reading order: `windows` (the engine, pure) -> `batch_keys` (counted once, pure) -> `snapshot`
(SQLite) -> `service` (the three together) -> `app` and `routes_*` (HTTP) -> `__main__`.
"""

__version__ = "0.1.0"
