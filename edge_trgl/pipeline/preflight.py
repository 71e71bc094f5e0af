"""What is checked before the data is read: that the model, the device and the named files are there.

Nothing is imported and nothing of torch is loaded; what only the model's own code can tell is left to the jobs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from edge_trgl.config.model_names import FIXED, KM, unknown_model
from edge_trgl.config.nearest import nearest
from edge_trgl.config.sections import RunConfig
from edge_trgl.runtime.errors import InputError, UsageError

LIBRARIES = {"torchvision": "torchvision/models", "timm": "timm/models"}
"""Packages with models, and the folders in which these are."""

_HOW_TO_NAME = "Give importable.module:function; the current folder is searched too."

_COUNT_DEVICES = (
    "import ctypes, sys; cuda = ctypes.CDLL('libcuda.so.1'); count = ctypes.c_int(); "
    "sys.exit(bool(cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value))"
)
"""Python code that succeeds where the driver has a device."""


def check(config: RunConfig) -> None:
    """Check what a configuration names.

    Raises:
        UsageError: there is no such model or device.
        InputError: the model's package, module or function is not there, or a named file is not.
    """
    _check_model(config.model.name)
    if config.train.device == "cuda":
        _check_cuda()
    pretrained, normalize = config.model.pretrained, config.data.normalize
    if pretrained is not None and not Path(pretrained).exists():
        raise InputError(f"{pretrained}: there is no such file", hint="Check --pretrained.")
    if normalize not in (None, "imagenet", "data") and not Path(normalize).is_file():
        raise InputError(f"{normalize}: there is no such file", hint="--normalize takes imagenet, data or a file.")


def _check_model(name: str) -> None:
    package, colon, model = name.partition(":")
    if not colon:
        if name not in FIXED and not KM.fullmatch(name):
            raise unknown_model(name)
    elif package in LIBRARIES:
        _check_library(package, model)
    else:
        _check_function(name, package, model)


# ---- libraries


def _check_library(package: str, model: str) -> None:
    """Refuse a model whose name stands nowhere in the library's source."""
    spec = _found(package)
    if spec is None or spec.origin is None:
        raise InputError(f"--model {package}:{model} needs {package}", hint=f"pip install {package}")
    word = re.compile(rf"\b{re.escape(model.partition('.')[0])}\b")
    sources = sorted((Path(spec.origin).parent.parent / LIBRARIES[package]).rglob("*.py"))
    if any(word.search(_text(path)) for path in sources):
        return
    near = nearest(model.partition(".")[0], _registered(sources), 3)
    raise UsageError(
        f"{package} has no model {model!r}",
        hint=f"Did you mean {' or '.join(near)}?" if near else f"See the models of {package}.",
    )


def _registered(sources: Sequence[Path]) -> list[str]:
    """Return the names of the functions that these files register as models."""
    pattern = re.compile(r"^@register_model\b.*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
    return [name for path in sources for name in pattern.findall(_text(path))]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


# ---- the user's own functions


def _check_function(name: str, module: str, function: str) -> None:
    """Refuse a module that is not there, and a function that no line of it defines."""
    spec = _found(module)
    if spec is None:
        raise InputError(f"--model {name}: there is no module {module}", hint=_HOW_TO_NAME)
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    try:
        names = _names_bound(Path(spec.origin).read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # the job that imports it shows the user the line
    if names.isdisjoint({function, "*", "__getattr__"}):
        near = nearest(function, names)
        raise InputError(
            f"--model {name}: {spec.origin} has no attribute {function!r}",
            hint=f"Did you mean {module}:{near[0]}?" if near else _HOW_TO_NAME,
        )


def _found(module: str) -> ModuleSpec | None:
    """Look up a module without importing it or its parents."""
    first, *rest = module.split(".")
    spec = PathFinder.find_spec(first, [str(Path.cwd()), *sys.path]) or _found_otherwise(first)
    for number in range(len(rest)):
        if spec is None:
            return None
        name = ".".join([first, *rest[: number + 1]])
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations or ()))
    return spec


def _found_otherwise(package: str) -> ModuleSpec | None:
    """Look up a package that is found by a finder of its own, such as one that pip installed as editable."""
    try:
        return find_spec(package)
    except ValueError:  # a module that is imported and has no spec
        return None


def _names_bound(source: bytes) -> set[str]:
    """Return the names that a module may have, and `*` if it imports everything from another.

    Raises:
        SyntaxError, ValueError: it cannot be read as Python.
    """
    import ast  # here, for its memory: a model of the catalogue does not need it

    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


# ---- the device


def _check_cuda() -> None:
    """Refuse a torch that is built without CUDA, and a machine whose driver has no device."""
    torch = PathFinder.find_spec("torch")
    version = None if torch is None or torch.origin is None else Path(torch.origin).parent / "version.py"
    if version is not None and re.search(r"^cuda\b.*= *None", version.read_text(), re.MULTILINE):
        raise UsageError(
            "there is no CUDA device for this torch: it is built for the CPU alone",
            hint="Install a build of torch with CUDA, or use --device cpu.",
        )
    counted = subprocess.run([sys.executable, "-c", _COUNT_DEVICES], capture_output=True, check=False)
    if counted.returncode != 0:
        raise UsageError("there is no CUDA device here", hint="Use --device cpu.")
