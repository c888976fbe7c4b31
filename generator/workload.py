"""What each request holds: a pure function of the seed and the request's index.

Users, features and timestamp shifts are drawn in blocks, each from its own random stream
`[seed, block, purpose]`: the same seed gives the same users and features on every machine, whatever
the rate, the retries, or the disorder asked for.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from generator.encoding import Floats, Format, encoder

FEATURES_PER_EVENT = 3
_BLOCK_EVENTS = 16_384
_FEATURE_DECIMALS = 6  # as precise as float32, and short in JSON

UserIndices = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """What the workload looks like.

    `zipf_exponent` (0 or more) matters with `popularity="zipf"` alone: the k-th most active of
    `users` is drawn with weight `1 / k ** zipf_exponent`. `disorder_seconds` is how far back an
    event's timestamp may be shifted.
    """

    seed: int
    users: int
    batch: int
    user_prefix: str
    popularity: Literal["zipf", "uniform"] = "zipf"
    zipf_exponent: float = 1.0
    disorder_seconds: float = 0.0
    format: Format = "json"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its encoded `body`, and the same events as columns of shape (batch,)."""

    body: bytes
    users: UserIndices
    timestamps: Floats


@dataclass(frozen=True, slots=True)
class _Block:
    number: int
    users: UserIndices  # (requests, batch)
    features: Floats  # (requests, batch, FEATURES_PER_EVENT)
    shifts: Floats  # (requests, batch), seconds


class Workload:
    """Requests by index. Cheap when asked in order: the block last used is kept."""

    def __init__(self, options: WorkloadOptions) -> None:
        self._options = options
        self._requests_a_block = max(1, _BLOCK_EVENTS // options.batch)
        self._cumulative = _cumulative_popularity(options)
        self._block = self._draw(0)
        self._encode = encoder(options.format)

    @property
    def options(self) -> WorkloadOptions:
        """The options it was made from."""
        return self._options

    def user_id(self, user: int) -> str:
        """Name the user with index `user`; under Zipf, 0 is the most active one."""
        return f"{self._options.user_prefix}-{user}"

    def request(self, index: int, now: float) -> Request:
        """Make request `index`, its events stamped `now` (epoch seconds) less their disorder."""
        number, row = divmod(index, self._requests_a_block)
        if self._block.number != number:
            self._block = self._draw(number)
        users = self._block.users[row]
        timestamps = now - self._block.shifts[row]
        prefix = self._options.user_prefix
        user_ids = [f"{prefix}-{user}" for user in users.tolist()]
        body = self._encode(user_ids, timestamps, self._block.features[row])
        return Request(body, users, timestamps)

    def probe(self, now: float) -> bytes:
        """Make a body of one event that is none of the workload's, stamped `now`."""
        zeros = np.zeros((1, FEATURES_PER_EVENT))
        return self._encode([f"{self._options.user_prefix}-probe"], np.array([now]), zeros)

    def _draw(self, number: int) -> _Block:
        options = self._options
        shape = (self._requests_a_block, options.batch)
        who, what, when = (np.random.default_rng([options.seed, number, n]) for n in range(3))
        if self._cumulative is None:
            users = who.integers(options.users, size=shape, dtype=np.int32)
        else:
            ranks = np.searchsorted(self._cumulative, who.random(shape), side="right")
            users = np.minimum(ranks, options.users - 1).astype(np.int32)
        features = np.round(what.standard_normal((*shape, FEATURES_PER_EVENT)), _FEATURE_DECIMALS)
        return _Block(number, users, features, when.random(shape) * options.disorder_seconds)


def _cumulative_popularity(options: WorkloadOptions) -> Floats | None:
    if options.popularity == "uniform":
        return None
    weights = np.arange(1, options.users + 1, dtype=np.float64) ** -options.zipf_exponent
    cumulative: Floats = np.cumsum(weights)
    cumulative /= cumulative[-1]
    return cumulative
