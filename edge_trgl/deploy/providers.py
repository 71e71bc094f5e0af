"""Choose an execution provider: TensorRT, else CUDA, else the CPU; and say why a faster one is not used."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from edge_trgl.runtime.errors import UsageError

NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Our names of the providers and onnxruntime's, the fastest first."""

ABSENT = "not in this build of onnxruntime"

Opened = TypeVar("Opened")


class ProviderFailedError(Exception):
    """A provider is in this build of onnxruntime but does not work here; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """The provider in use, and the faster ones that did not work, each with the reason."""

    name: str
    passed_over: Mapping[str, str]

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.passed_over.items())
        return f"{self.name} ({reasons})" if reasons else self.name


def load_runtime() -> ModuleType:
    """Import onnxruntime.

    Raises:
        UsageError: it is not installed, or cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            f"running a model file needs onnxruntime, which cannot be loaded here: {error}",
            hint="pip install onnxruntime; on Jetson, NVIDIA's onnxruntime-gpu wheel for your JetPack.",
        ) from error
    loaded: ModuleType = onnxruntime
    return loaded


def take(wanted: str, available: Collection[str], attempt: Callable[[str], Opened]) -> tuple[Opened, Provider]:
    """Open something with the first provider that works.

    Args:
        wanted: a key of NAMES to try only that one, or `auto` to try all, the fastest first.
        available: onnxruntime's names of the providers in its build.
        attempt: opens it with the provider of this key of NAMES; raises ProviderFailedError if that does not work.

    Raises:
        UsageError: `wanted` is not a provider, or does not work here.
    """
    if wanted not in ("auto", *NAMES):
        raise UsageError(f"there is no provider {wanted}", hint=f"Choose one of auto, {', '.join(NAMES)}.")
    passed_over: dict[str, str] = {}
    for name in NAMES if wanted == "auto" else (wanted,):
        if NAMES[name] not in available:
            passed_over[name] = ABSENT
            continue
        try:
            return attempt(name), Provider(name=name, passed_over=passed_over)
        except ProviderFailedError as error:
            passed_over[name] = f"present but failed with: {error}"
    tried = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    raise UsageError(f"no provider can be used: {tried}", hint="Leave --provider out for one that works.")


def with_slower(name: str, available: Collection[str]) -> list[str]:
    """onnxruntime's names of a provider and of the slower ones that run what it cannot, the fastest first."""
    first = list(NAMES).index(name)
    return [provider for provider in list(NAMES.values())[first:] if provider in available]


def why_not_loaded(runtime: ModuleType, name: str) -> str:
    """Find out why onnxruntime silently skipped a provider; mostly a missing NVIDIA library."""
    library = Path(runtime.__file__ or "").parent / "capi" / f"libonnxruntime_providers_{name}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return "onnxruntime gave no reason"
