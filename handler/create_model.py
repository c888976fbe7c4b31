"""Write the default network's weights: `python -m handler.create_model --help`.

The weights are not trained; they are deterministic, so that everybody's first run gives the
same scores. The file is a plain state_dict, loadable with `weights_only=True`.
"""

import argparse
from pathlib import Path

import torch

from handler.network import build

DEFAULT_OUTPUT = Path("model_store/inefficient_model.pt")
DEFAULT_SEED = 42
DEFAULT_FEATURES = 3
WEIGHT_BOUND = 0.1


def create_state_dict(
    seed: int = DEFAULT_SEED, features: int = DEFAULT_FEATURES
) -> dict[str, torch.Tensor]:
    """Return the default network's parameters, uniform in ±0.1; the same bytes for a seed."""
    network = build(features)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-WEIGHT_BOUND, WEIGHT_BOUND, generator=generator)
    return dict(network.state_dict())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m handler.create_model",
        description="Write the default network's deterministic weights as a state_dict.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the weights")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="file to write")
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(create_state_dict(options.seed), options.output)
    print(f"wrote {options.output} (seed {options.seed})")


if __name__ == "__main__":
    main()
