"""What pixels are normalised with: chosen once for a run, before it is planned, and kept in its facts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, open_dataset, open_survey
from edge_trgl.run.facts import Normalisation, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import EdgeTrglError, InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGENET = Normalisation(name="ImageNet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_SAMPLES = "edge_trgl.samples"
"""The name in the metadata of a file of pretrained blocks; its text is JSON."""

_NAMES = (("mean", "std"), ("image_mean", "image_std"))
"""What a file calls the two, also that of Hugging Face."""


def normalised(info: DatasetInfo, facts: RunFacts) -> DatasetInfo:
    """Return the description of the data with the mean and std that the run normalises with."""
    chosen = facts.normalisation
    return info if chosen is None else replace(info, mean=chosen.mean, std=chosen.std)


def choose_normalisation(run: Run) -> Normalisation | None:
    """Choose what pixels are normalised with, store and return it; None stands for the data's own statistics.

    Args:
        run: its data is prepared or surveyed, and its model is cut if it is imported.

    Raises:
        UsageError: it does not suit the data.
        InputError: the file cannot be read.
    """
    config, info, facts = run.config(), open_survey(run.data), run.facts()
    try:
        chosen = _asked_for(config.data.normalize, info) or _default(config, info, facts)
        facts.normalisation = chosen
    finally:
        facts.close()
    return chosen


def _asked_for(text: str | None, info: DatasetInfo) -> Normalisation | None:
    if text in (None, "data"):
        return None
    if len(info.input_shape) != 3:
        raise UsageError(
            f"--normalize {text} is of images, and these are windows",
            hint="Use --normalize data, or leave it out.",
        )
    found = IMAGENET if text == "imagenet" else read_file(Path(text))
    suited = _for_channels(found, info.input_shape[0])
    if suited is None:
        raise UsageError(
            f"--normalize {text} has {len(found.mean)} channels, and the data has {info.input_shape[0]}",
            hint="Use --normalize data, or a file with one number for each channel.",
        )
    return suited


def _default(config: RunConfig, info: DatasetInfo, facts: RunFacts) -> Normalisation | None:
    """Return what the pretrained net was trained with, if that is known and the data has its channels."""
    pretrained = config.model.pretrained
    if config.data.normalize is not None or pretrained is None:
        return None
    if Path(pretrained).is_dir():
        known = _of_run(Path(pretrained), info.dtype)
    else:
        is_of_pixels = info.dtype == "uint8" and len(info.input_shape) == 3
        of_library = facts.library_normalisation if is_of_pixels else None
        known = _of_blocks(Path(pretrained), info.dtype) or of_library
    return None if known is None else _for_channels(known, info.input_shape[0])


def _of_run(folder: Path, dtype: str) -> Normalisation | None:
    """Return what another run normalises with; None if its data is gone, or of another type than `dtype`."""
    run = Run(folder)
    if not run.state_file.is_file():
        return None
    facts = run.facts()
    try:
        info = normalised(open_dataset(run.data), facts)
    except EdgeTrglError:
        return None
    finally:
        facts.close()
    if info.dtype != dtype:
        return None
    return Normalisation(name=f"in {folder}", mean=info.mean, std=info.std)


def as_metadata(info: DatasetInfo) -> dict[str, str]:
    """Return what a file of pretrained blocks says of the samples that they were trained on."""
    return {_SAMPLES: json.dumps({"dtype": info.dtype, "mean": info.mean, "std": info.std})}


def _of_blocks(path: Path, dtype: str) -> Normalisation | None:
    """Return what the blocks in a file were trained with; None if it does not say, or that is of another type."""
    from edge_trgl.engine.weight_files import metadata_of  # here, for its memory: training does not need it

    samples = json.loads(metadata_of(path).get(_SAMPLES, "{}"))
    if samples.get("dtype") != dtype:
        return None
    return Normalisation(name=f"in {path}", mean=tuple(samples["mean"]), std=tuple(samples["std"]))


def _for_channels(found: Normalisation, channels: int) -> Normalisation | None:
    """Return the numbers for this many channels: grey ones are the mean of the colours, or repeated for these."""
    if len(found.mean) == channels:
        return found
    if channels == 1:
        mean, std = (sum(numbers) / len(numbers) for numbers in (found.mean, found.std))
        return Normalisation(name=f"{found.name}, for grey images", mean=(mean,), std=(std,))
    if len(found.mean) == 1:
        return replace(found, mean=found.mean * channels, std=found.std * channels)
    return None


def read_file(path: Path) -> Normalisation:
    """Read mean and std from a JSON or TOML file.

    Raises:
        InputError: it cannot be read, or does not hold them.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document: Any = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", hint="--normalize takes imagenet, data, or a .json or .toml file."
        ) from error
    content: Mapping[str, Any] = document if isinstance(document, dict) else {}
    for names in _NAMES:
        mean, std = (_numbers(content.get(name)) for name in names)
        if mean and std and len(mean) == len(std) and min(std) > 0:
            return Normalisation(name=f"in {path}", mean=mean, std=std)
    raise InputError(
        f"{path} holds no mean and std: two lists of as many numbers, those of std above 0",
        hint="For example: mean = [0.5, 0.5, 0.5] and std = [0.25, 0.25, 0.25], for pixels from 0 to 1.",
    )


def _numbers(value: object) -> tuple[float, ...]:
    """Return a number, or a list of them, as a tuple; an empty one for anything else."""
    items: Sequence[object] = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
        return ()
    return tuple(float(item) for item in items if isinstance(item, (int, float)))
