"""Build `model_store/scorer.mar` with torch-model-archiver: `python -m handler.archive --help`.

The archive holds `scorer_handler.py` and the weights at its root, the `handler` package beside
them, and whatever `--include` names (the module of another network, for one): see `packing`. The
model is loaded once before packing, so that weights that do not fit are found here.
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

from handler.errors import ModelError
from handler.packing import (
    CONFIG,
    DEFAULT_CONFIG,
    DEFAULT_OUTPUT,
    DEFAULT_VERSION,
    DEFAULT_WEIGHTS,
    ENTRY,
    Contents,
    Inputs,
    choose_inputs,
    contents,
    has_current_code,
    identity_of,
    is_current,
    packed_inputs,
    shown,
)
from handler.settings import SettingsError, load_settings

MODEL_NAME = "scorer"
# Not by its script, which names the folder of this environment: that may hold a quote.
_ARCHIVER = "from model_archiver.model_packaging import generate_model_archive as run; run()"


def build_archive(
    output: Path = DEFAULT_OUTPUT,
    weights: Path | None = None,
    config: Path | None = None,
    include: Sequence[Path] = (),
    version: str | None = None,
) -> Path:
    """Write the archive, atomically, and return its path; the default model unless one is given.

    Raises `ModelError` or `SettingsError` naming what does not fit, and
    `subprocess.CalledProcessError` when torch-model-archiver fails.
    """
    return pack(output, choose_inputs(weights, config, include, version))


def pack(output: Path, inputs: Inputs) -> Path:
    """Write the archive of these inputs, atomically, and return its path. Raises as above."""
    # Torch takes seconds to import, and whoever only asks whether an archive is current needs none.
    from handler.scoring import load_scorer  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="medianserve-archive-") as scratch:
        staged = Path(scratch) / "files"
        _stage(staged, contents(inputs))
        config = staged / CONFIG
        settings = load_settings(yaml.safe_load(config.read_bytes()), environment={})
        with _importing_from(staged):
            load_scorer(settings.factory, settings.feature_count, staged / settings.weights)
        built = _run_archiver(Path(scratch), staged, inputs.version)
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


def _stage(staged: Path, files: Contents) -> None:
    """Lay out the archive's root in `staged`."""
    for name, content in files.items():
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copyfile(content, path)  # of today: zip has no date before 1980


def _run_archiver(scratch: Path, staged: Path, version: str) -> Path:
    # The archiver deletes $TMPDIR/<model name> before it starts: give it a TMPDIR of its own. What
    # it is given by name must not be among the extra files as well.
    private_tmp = scratch / "tmp"
    private_tmp.mkdir()
    for name in (ENTRY, CONFIG):
        shutil.move(staged / name, scratch / name)
    subprocess.run(  # noqa: S603 - our environment's own tool, arguments not from users
        [
            sys.executable, "-c", _ARCHIVER,
            "--model-name", MODEL_NAME,
            "--version", version,
            "--handler", str(scratch / ENTRY),
            "--extra-files", str(staged),
            "--config-file", str(scratch / CONFIG),
            "--export-path", str(scratch),
        ],
        check=True,
        env={**os.environ, "TMPDIR": str(private_tmp)},
    )  # fmt: skip
    return scratch / f"{MODEL_NAME}.mar"


def _pack_again(output: Path) -> None:
    """Pack anew what was packed last, if that has changed; the default model where nothing was."""
    if not output.exists():
        _pack_if_changed(output, choose_inputs())
        return
    inputs = packed_inputs(output)
    if missing := inputs.missing():
        if not has_current_code(output):
            raise ModelError(
                f"{output} was packed with another version of the handler, and from {missing[0]}, "
                f"which is not there any more: put it back and run make model, or go back to the "
                "default model: make default-model"
            )
        print(f"note: {missing[0]} is not there any more; {output} is as it was packed")
        return
    _pack_if_changed(output, inputs)


def _replaced_config(output: Path, inputs: Inputs) -> Path | None:
    """Return the user's YAML that an archive was packed with, where the default's takes its place.

    None where it was packed with the default's too, or does not say.
    """
    with contextlib.suppress(ModelError):
        before = packed_inputs(output).config
        if shown(inputs.config) == shown(DEFAULT_CONFIG) != shown(before):
            return before
    return None


def _pack_if_changed(output: Path, inputs: Inputs) -> None:
    if is_current(output, inputs):
        return
    pack(output, inputs)
    print(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB): {identity_of(output)}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m handler.archive",
        description="Pack the handler, a network and its weights into an archive for TorchServe, "
        "unless it holds just these. Without any of them, the default model.",
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="archive to write (%(default)s)"
    )
    parser.add_argument(
        "--weights", type=Path,
        help=f"a state_dict (what the YAML names; {DEFAULT_WEIGHTS} for the default one)",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, help=f"the model YAML ({shown(DEFAULT_CONFIG)})")
    parser.add_argument(
        "--include", type=Path, action="append", default=[], metavar="PATH",
        help="module or folder to add, such as the one with another network's factory (repeatable)",
    )  # fmt: skip
    parser.add_argument("--version", help=f"the model's version ({DEFAULT_VERSION})")
    parser.add_argument(
        "--again", action="store_true",
        help="pack what OUTPUT was packed from, where that has changed",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.again and (options.weights or options.config or options.include or options.version):
        parser.error("--again takes the files and the version from the archive: give it no others")
    try:
        if options.again:
            _pack_again(options.output)
        else:
            inputs = choose_inputs(
                options.weights, options.config, options.include, options.version
            )
            if mine := _replaced_config(options.output, inputs):
                print(
                    f"note: until now {options.output} was packed with {mine}; without "
                    f"MODEL_CONFIG={mine} (--config) the default model's YAML is used"
                )
            _pack_if_changed(options.output, inputs)
    except (ModelError, SettingsError, OSError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit("error: torch-model-archiver failed; its message is above")


if __name__ == "__main__":
    main()
