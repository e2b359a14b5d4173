"""What a Triton would say of a model repository, before one is started: the mistakes that people make.

Reads files only. A model without these mistakes can still fail to load; one with them will.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

CONFIG = "config.pbtxt"
# The file a version folder holds, by backend, where the configuration names no other.
MODEL_FILES = {
    "python": "model.py",
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "pytorch": "model.pt",
    "openvino": "model.xml",
}
_OLD_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
}


@dataclass(frozen=True, slots=True)
class ModelTrouble:
    """Why a model will not load, and what to do about it."""

    model: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Repository:
    models: tuple[str, ...]  # that are to be served
    troubles: tuple[ModelTrouble, ...] = ()


def inspect(folder: Path, wanted: Iterable[str], backends: frozenset[str] | None = None) -> Repository:
    """The models of ``folder`` that ``wanted`` names ("*": all of them). ``backends``: those that the server
    has, None where that is not known. Raises OSError for a folder that cannot be read."""
    names = tuple(wanted)
    if "*" in names:
        found = (entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
        names = tuple(sorted(entry.name for entry in found))
    troubles = tuple(trouble for name in names if (trouble := _trouble(folder / name, backends)))
    return Repository(names, troubles)


def _trouble(folder: Path, backends: frozenset[str] | None) -> ModelTrouble | None:
    name, config = folder.name, model_config_pb2.ModelConfig()
    path = folder / CONFIG
    try:
        if path.exists():
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        entries = list(folder.iterdir())
    except text_format.ParseError as error:
        return ModelTrouble(name, f"{path}:{error}", "correct that line")
    except (OSError, UnicodeDecodeError) as error:
        return ModelTrouble(name, f"{path} cannot be read: {error}", f"chmod -R a+rX {folder}")
    if config.name and config.name != name:
        fix = f'write name: "{name}", or leave it out'
        return ModelTrouble(name, f"{path} names the model {config.name!r}, its folder {name!r}", fix)
    versions = [entry for entry in entries if entry.is_dir() and entry.name.isdigit() and int(entry.name) > 0]
    if not versions:
        return ModelTrouble(
            name, f"{folder} has no version", f"mkdir {folder}/1, and put the model's file there"
        )
    backend = config.backend or _OLD_PLATFORMS.get(config.platform, "")
    if backends is not None and backend and backend not in backends:
        fix = "use a Triton that has it: its image (triton.image), or TRITONFLEET_TRITONSERVER"
        there = ", ".join(sorted(backends))
        return ModelTrouble(name, f"needs backend {backend!r}; this tritonserver has: {there}", fix)
    return _missing_file(name, backend, config.default_model_filename, versions)


def _missing_file(name: str, backend: str, named: str, versions: list[Path]) -> ModelTrouble | None:
    file = named or MODEL_FILES.get(backend, "")
    newest = max(versions, key=lambda entry: int(entry.name))  # the one that Triton loads by default
    if not file or (newest / file).exists():
        return None
    return ModelTrouble(name, f"version {newest.name} has no {file}", f"put it at {newest / file}")
