"""From Python what the command line does, with the same names and the same defaults.

    import edge_trgl

    run = edge_trgl.train(budget_mb=500, data="my-images", epochs=5)
    print(run.summary["accuracy"]["chosen"])
    print(run.export(depth="last", int8=True).file)

Everything heavy happens in child processes. What the calling process holds counts towards the budget, as the
command's own does: it takes the board's memory, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_trgl.config.export_request import FORMS
from edge_trgl.config.flags import configuration
from edge_trgl.config.sections import RunConfig
from edge_trgl.pipeline.exporting import ExportOptions
from edge_trgl.pipeline.job_runner import Listener
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.folder import RUNS, Run, begin_or_continue, numbered
from edge_trgl.runtime.errors import EdgeTrglError, UsageError, require_package
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes.supervisor import Message
from edge_trgl.runtime.records import to_json

__all__ = ["EdgeTrglError", "Limits", "Training", "begin", "plan", "plan_of", "train", "warn"]


def warn(message: Message) -> None:
    """The listener that is told of nothing but warnings, and gives them to `warnings`."""
    if message["kind"] == "warning":
        warnings.warn(message["text"], stacklevel=2)


class Training:
    """A run, finished or not, and what can be done with it.

    Every method raises EdgeTrglError of the kind that stands for the command's exit code.

    Args:
        folder: of the run.
        listener: is told what happens, in messages of kind `phase`, `progress`, `warning` and others;
            `edge_trgl.cli.progress.Terminal()` shows them as the command does.

    Raises:
        UsageError: the folder is not a run.
    """

    def __init__(self, folder: Path | str, listener: Listener = warn) -> None:
        self._run = Run.open(Path(folder))
        self._listener = listener

    @property
    def folder(self) -> Path:
        """Where everything of the run is."""
        return self._run.folder

    @property
    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None before the run is done."""
        return self._run.summary()

    def resume(self, limits: Limits = Limits()) -> dict[str, Any]:  # noqa: B008 - it is frozen
        """Train to the end, from the last commit on; returns the summary.

        `limits`: others than the run was begun with; a number that is None stays as it was.
        """
        with self._pipeline() as pipeline:
            return pipeline.train(limits)

    def evaluate(self) -> dict[str, Any]:
        """Accuracies at every depth, fractions."""
        with self._pipeline() as pipeline:
            result = pipeline.evaluate()
        return {**to_json(result.scores), "weights_sha256": result.weights_sha256}

    def export(
        self,
        *,
        depth: int | str = "chosen",
        target: str | None = None,
        batch: int | str = "dynamic",
        exits: float | str | None = None,
        stages: Sequence[int] | str | None = None,
        int8: bool = False,
        fp16: bool = False,
    ) -> ExportRecord:
        """Write model.onnx and check it against the network; returns what export.json says.

        Args:
            depth: in modules; or chosen, last or all.
            target: what will run it; None for the profile's.
            batch: samples at a time; or dynamic.
            exits: a probability to leave early at, or `auto:POINTS` of accuracy to lose, for stages beside it.
            stages: the depths where these end; None for every one with a classifier.
            int8: model.int8.onnx, too.
            fp16: model.fp16.onnx, too.
        """
        ends = stages if stages is None or isinstance(stages, str) else ",".join(map(str, stages))
        wanted = {"int8": int8, "fp16": fp16}
        with self._pipeline() as pipeline:
            return pipeline.export(
                ExportOptions(
                    depth=str(depth),
                    target=target,
                    batch=str(batch),
                    exits=None if exits is None else str(exits),
                    stages=ends,
                    forms=[form for form in FORMS if wanted[form]],
                )
            )

    def report(self, against: Sequence[Path | str] = ()) -> Path:
        """Write report.html of what there is so far.

        Args:
            against: folders of other trained runs, whose accuracies it draws beside this one's.
        """
        Pipeline(self._run, self._listener).report([str(folder) for folder in against])
        return self._run.report_file

    @contextlib.contextmanager
    def _pipeline(self) -> Iterator[Pipeline]:
        with self._run.locked():
            yield Pipeline(self._run, self._listener)


def begin(folder: Path | str, config: RunConfig, listener: Listener = warn) -> Training:
    """The run in `folder`, not trained yet: a new one, or the one that was begun there in the same way.

    Raises:
        UsageError: torch is not installed, or the folder has something else in it.
    """
    require_package("torch", "training")
    return Training(begin_or_continue(Path(folder), config).folder, listener)


def train(
    run: Path | str | None = None,
    *,
    profile: str | None = None,
    recipe: str | None = None,
    config_file: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener = warn,
    **flags: Any,
) -> Training:
    """Train a network, or go on with one; every option has a default.

    Args:
        run: its folder; None for a new numbered one under runs/.
        profile: a board's defaults, by name or file.
        recipe: hyperparameters by name.
        config_file: TOML, with sections as in run.toml.
        settings: by `section.key`, such as `{"train.momentum": 0.8}`.
        listener: as of `Training`.
        flags: those of `edge-trgl train`, with underscores: `budget_mb=500`, `no_transport=True`.
    """
    config = _configuration(profile, recipe, config_file, settings, flags)
    training = begin(numbered() if run is None else run, config, listener)
    training.resume()
    return training


def plan(
    *,
    profile: str | None = None,
    recipe: str | None = None,
    config_file: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener = warn,
    **flags: Any,
) -> dict[str, Any]:
    """What `edge-trgl plan --json` prints, of the same options as `train`; trains nothing."""
    return plan_of(_configuration(profile, recipe, config_file, settings, flags), listener).document()


def plan_of(config: RunConfig, listener: Listener = warn) -> PlannedRun:
    """The plan of a configuration.

    Raises:
        UsageError: torch is not installed.
    """
    require_package("torch", "planning")
    with _temporary_run(config) as run:
        return Pipeline(run, listener).plan()


def _configuration(
    profile: str | None,
    recipe: str | None,
    config_file: Path | str | None,
    settings: Mapping[str, Any] | None,
    flags: Mapping[str, Any],
) -> RunConfig:
    return configuration(
        flags,
        profile=profile,
        recipe=recipe,
        config_file=None if config_file is None else Path(config_file),
        values=[_nested(name, value) for name, value in (settings or {}).items()],
    )


def _nested(name: str, value: Any) -> dict[str, dict[str, Any]]:
    section, dot, key = name.partition(".")
    if not dot:
        raise UsageError(f"settings: {name}: expected section.key", hint="For example train.momentum.")
    return {section: {key: value}}


@contextlib.contextmanager
def _temporary_run(config: RunConfig) -> Iterator[Run]:
    # Beside the runs and not in /tmp, which is memory on many boards.
    folder = RUNS / f".plan-{os.getpid()}"
    existed = RUNS.exists()
    try:
        yield Run.create(folder, config)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                RUNS.rmdir()
