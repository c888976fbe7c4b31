"""Build `model_store/scorer.mar` with torch-model-archiver: `python -m handler.archive --help`.

The archive holds `scorer_handler.py` and the weights at its root, the `handler` package beside
them, and whatever `--include` names (the module of another network, for one). The model is
loaded once before packing, so that weights that do not fit are found here.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from handler.scoring import ModelError, load_scorer
from handler.settings import SettingsError, load_settings

PACKAGE = Path(__file__).parent
MODEL_NAME = "scorer"
DEFAULT_CONFIG = PACKAGE / "model-config.yaml"
DEFAULT_WEIGHTS = Path("model_store/inefficient_model.pt")
DEFAULT_OUTPUT = Path("model_store/scorer.mar")
# Only what runs in a worker travels; these build things or are placed at the root.
_STAY_HOME = {"archive.py", "create_model.py", "scorer_handler.py"}


def build_archive(
    output: Path = DEFAULT_OUTPUT,
    weights: Path = DEFAULT_WEIGHTS,
    config: Path = DEFAULT_CONFIG,
    include: Sequence[Path] = (),
    version: str = "1.0",
) -> Path:
    """Write the archive, atomically, and return its path.

    Raises `ModelError` or `SettingsError` naming what does not fit, and
    `subprocess.CalledProcessError` when torch-model-archiver fails.
    """
    settings = load_settings(yaml.safe_load(config.read_text()), environment={})
    with tempfile.TemporaryDirectory(prefix="medianserve-archive-") as scratch:
        staged = Path(scratch) / "files"
        _stage(staged, weights, settings.weights, include)
        with _importing_from(staged):
            load_scorer(settings.factory, settings.feature_count, staged / settings.weights)
        built = _run_archiver(Path(scratch), staged, config, version)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_suffix(".mar.partial")
        shutil.move(built, partial)
        partial.replace(output)
    return output


@contextlib.contextmanager
def _importing_from(staged: Path) -> Iterator[None]:
    """Import as a worker will: from the archive and what is installed, not from this folder."""
    before = sys.path.copy()
    sys.path[:] = [str(staged), *(path for path in before if path not in {"", str(Path.cwd())})]
    try:
        yield
    finally:
        sys.path[:] = before


def _stage(staged: Path, weights: Path, weights_name: str, include: Sequence[Path]) -> None:
    """Lay out the archive's root in `staged`."""
    if not weights.is_file():
        raise ModelError(f"weights file {weights} not found: run python -m handler.create_model")
    package = staged / PACKAGE.name
    package.mkdir(parents=True)
    for module in PACKAGE.glob("*.py"):
        if module.name not in _STAY_HOME:
            shutil.copy2(module, package)
    shutil.copy2(weights, staged / weights_name)
    for extra in include:
        if extra.is_dir():
            shutil.copytree(extra, staged / extra.name)
        else:
            shutil.copy2(extra, staged)


def _run_archiver(scratch: Path, staged: Path, config: Path, version: str) -> Path:
    # The archiver deletes $TMPDIR/<model name> before it starts: give it a TMPDIR of its own.
    private_tmp = scratch / "tmp"
    private_tmp.mkdir()
    subprocess.run(  # noqa: S603 - our environment's own tool, arguments not from users
        [
            str(Path(sys.executable).with_name("torch-model-archiver")),
            "--model-name", MODEL_NAME,
            "--version", version,
            "--handler", str(PACKAGE / "scorer_handler.py"),
            "--extra-files", str(staged),
            "--config-file", str(_named(config, scratch / "model-config.yaml")),
            "--export-path", str(scratch),
        ],
        check=True,
        env={**os.environ, "TMPDIR": str(private_tmp)},
    )  # fmt: skip
    return scratch / f"{MODEL_NAME}.mar"


def _named(config: Path, path: Path) -> Path:
    """Copy the config to the one name it has in every archive."""
    shutil.copy2(config, path)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m handler.archive",
        description="Pack the handler, a network and its weights into an archive for TorchServe.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="archive to write")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="a state_dict")
    config = Path(os.path.relpath(DEFAULT_CONFIG))  # as short in --help as it is typed
    parser.add_argument("--config", type=Path, default=config, help="the model YAML")
    parser.add_argument(
        "--include", type=Path, action="append", default=[], metavar="PATH",
        help="module or folder to add, such as the one with another network's factory (repeatable)",
    )  # fmt: skip
    parser.add_argument("--version", default="1.0", help="the model's version")
    options = parser.parse_args(arguments)
    try:
        path = build_archive(
            options.output, options.weights, options.config, options.include, options.version
        )
    except (ModelError, SettingsError, OSError, yaml.YAMLError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit("error: torch-model-archiver failed; its message is above")
    print(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main()
