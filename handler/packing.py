"""What goes into the archive, what it was packed from, and whether it is still that.

An archive holds the names of the files that it was packed from (`packed.json`), so the two cannot
come apart: what was packed last can be packed anew when one of them, or the handler's code, has
changed. Nothing here goes by a file's age: a checkout makes everything new.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from handler.errors import ModelError
from handler.identity import ModelIdentity, identity
from handler.settings import HandlerSettings, load_settings

PACKAGE = Path(__file__).parent
ENTRY = "scorer_handler.py"
CONFIG = "model-config.yaml"
DEFAULT_CONFIG = PACKAGE / CONFIG
DEFAULT_WEIGHTS = Path("model_store/inefficient_model.pt")
DEFAULT_OUTPUT = Path("model_store/scorer.mar")
DEFAULT_VERSION = "1.0"
MANIFEST = "MAR-INF/MANIFEST.json"

_PACKED = "packed.json"
# Only what runs in a worker travels; these build things or are placed at the root.
_STAY_HOME = {"archive.py", "create_model.py", "default_model.py", "packing.py", ENTRY}
_CHUNK_BYTES = 1 << 20

Contents = Mapping[str, Path | bytes]


class Inputs(msgspec.Struct, frozen=True):
    """The files that a model is packed from, and its version."""

    weights: Path
    config: Path
    include: tuple[Path, ...] = ()
    version: str = DEFAULT_VERSION

    def missing(self) -> list[Path]:
        """Return those that are not there."""
        return [path for path in (self.weights, self.config, *self.include) if not path.exists()]


def choose_inputs(
    weights: Path | None = None,
    config: Path | None = None,
    include: Sequence[Path] = (),
    version: str | None = None,
) -> Inputs:
    """Return the inputs that are meant: the default model's where nothing is given.

    Without `weights` they are the file that the YAML names. Raises `ModelError` where the two name
    different files, where there is none, or where only what goes with a model is given.
    """
    if weights is None and config is None and (include or version):
        raise ModelError(
            f"{'--include' if include else '--version'} alone names no model: give its files as "
            "well (--weights, --config; for make WEIGHTS=, MODEL_CONFIG=)"
        )
    version = version or DEFAULT_VERSION
    if config is None:
        return Inputs(weights or DEFAULT_WEIGHTS, DEFAULT_CONFIG, tuple(include), version)
    named = _handler_section(config).get("weights")
    if weights is None:
        name = named or HandlerSettings().weights
        places = [config.parent / name, Path(name), DEFAULT_WEIGHTS.parent / name]
        weights = next((place for place in places if place.is_file()), None)
        if weights is None:
            raise ModelError(
                f"{config} names the weights {name}, which are neither beside it nor here: "
                f"make model WEIGHTS=/path/to/{Path(name).name} MODEL_CONFIG={config}"
            )
    elif named is not None and Path(named).name != weights.name:
        raise ModelError(
            f"{config} names the weights {named}, but {weights} were given: "
            f"write 'weights: {weights.name}' into it, or give WEIGHTS=/path/to/{named}"
        )
    return Inputs(weights, config, tuple(include), version)


def contents(inputs: Inputs) -> Contents:
    """Return all that the archive holds but its manifest, by name: files, or bytes of our own.

    Raises `ModelError` when a file is not there, or two would have one name.
    """
    if missing := inputs.missing():
        raise ModelError(_not_there(missing[0]))
    found: dict[str, Path | bytes] = {
        **handler_code(),
        CONFIG: _config_to_pack(inputs),
        _PACKED: _record(inputs),
    }
    for name, path in [(inputs.weights.name, inputs.weights), *_included(inputs.include)]:
        if name in found:
            raise ModelError(f"{path}: the archive has a file {name} already; rename yours")
        found[name] = path
    return found


def handler_code() -> dict[str, Path]:
    """Return the part of the contents that is ours."""
    modules = {f"{PACKAGE.name}/{path.name}": path for path in PACKAGE.glob("*.py")}
    for name in _STAY_HOME:
        modules.pop(f"{PACKAGE.name}/{name}", None)
    return {**modules, ENTRY: PACKAGE / ENTRY}


def is_current(archive: Path, inputs: Inputs) -> bool:
    """Tell whether an archive holds these inputs as they are now, and the handler's code.

    Raises `ModelError` as `contents`.
    """
    wanted = {name: _fingerprint(content) for name, content in contents(inputs).items()}
    return _fingerprints(archive) == wanted and _version(archive) == inputs.version


def has_current_code(archive: Path) -> bool:
    """Tell whether an archive's handler is the one that is here."""
    packed = _fingerprints(archive)
    return all(packed.get(name) == _fingerprint(path) for name, path in handler_code().items())


def packed_inputs(archive: Path) -> Inputs:
    """Return what an archive was packed from. Raises `ModelError` when it does not say."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return msgspec.json.decode(packed.read(_PACKED), type=Inputs, dec_hook=_path)
    except (OSError, zipfile.BadZipFile, KeyError, msgspec.DecodeError):
        raise ModelError(
            f"{archive} does not say what it was packed from: pack your model again "
            "(make model WEIGHTS=… MODEL_CONFIG=… INCLUDE=…), or the default one "
            "(make default-model)"
        ) from None


def identity_of(archive: Path) -> ModelIdentity:
    """Return which model an archive holds. Raises `ModelError` when it holds none of ours."""
    try:
        with zipfile.ZipFile(archive) as packed:
            model = json.loads(packed.read(MANIFEST))["model"]
            settings = load_settings(yaml.safe_load(packed.read(CONFIG)), {})
            with packed.open(settings.weights) as weights:
                return identity(model["modelName"], model["modelVersion"], settings, weights)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{archive} is not an archive of a scorer: {error}") from error


def _not_there(path: Path) -> str:
    if path == DEFAULT_WEIGHTS:
        return f"{path} is not there: python -m handler.create_model writes it"
    return f"{path} is not there: name the files of your model (WEIGHTS=, MODEL_CONFIG=, INCLUDE=)"


def shown(path: Path) -> Path:
    """Return a path as it is typed here: without this folder's name."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _path(kind: type, value: object) -> Path:
    assert kind is Path
    return Path(str(value))


def _record(inputs: Inputs) -> bytes:
    paths = msgspec.structs.replace(
        inputs,
        weights=shown(inputs.weights),
        config=shown(inputs.config),
        include=tuple(map(shown, inputs.include)),
    )
    return msgspec.json.encode(paths, enc_hook=str)


def _included(include: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for extra in include:
        if not extra.is_dir():
            yield extra.name, extra
            continue
        for file in sorted(extra.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield (extra.name / file.relative_to(extra)).as_posix(), file


def _document(config: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"the model YAML {config} is not there (MODEL_CONFIG=)") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{config} cannot be read as YAML: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{config} is no model YAML: copy {shown(DEFAULT_CONFIG)} and edit it")
    return document


def _handler_section(config: Path) -> dict[str, Any]:
    section = _document(config).get("handler") or {}
    return section if isinstance(section, dict) else {}


def _config_to_pack(inputs: Inputs) -> bytes:
    """Return the YAML as it travels: it names the weights that travel with it."""
    document = _document(inputs.config)
    section = document.get("handler") or {}
    if isinstance(section, dict):  # else the settings are refused, with a sentence
        document["handler"] = {**section, "weights": inputs.weights.name}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()


def _fingerprints(archive: Path) -> dict[str, tuple[int, int]]:
    """Return each member's size and checksum, as the archive's directory has them."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return {
                member.filename: (member.file_size, member.CRC)
                for member in packed.infolist()
                if not member.is_dir() and member.filename != MANIFEST
            }
    except (OSError, zipfile.BadZipFile):
        return {}


def _fingerprint(content: Path | bytes) -> tuple[int, int]:
    if isinstance(content, bytes):
        return len(content), zlib.crc32(content)
    size = checksum = 0
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum


def _version(archive: Path) -> str | None:
    with zipfile.ZipFile(archive) as packed:
        version: str | None = json.loads(packed.read(MANIFEST))["model"].get("modelVersion")
        return version
