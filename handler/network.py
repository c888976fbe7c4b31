"""The default network: a small multilayer perceptron from 3 features to 1 score.

A factory takes the feature count and returns an untrained `torch.nn.Module` that maps
float32 `[events, features]` to `[events, 1]` or `[events]`. Name another one in the model
YAML (`handler: {factory: my_network:build}`) to serve another network.
"""

from torch import nn

HIDDEN_UNITS = 128


def build(features: int) -> nn.Module:
    """Return features -> 128 -> ReLU -> Dropout(0) -> 128 -> ReLU -> 1, untrained."""
    return nn.Sequential(
        nn.Linear(features, HIDDEN_UNITS),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
        nn.ReLU(),
        nn.Linear(HIDDEN_UNITS, 1),
    )
