"""The Python interface: does what the command line does, with the same names and defaults.

    import edge_trgl

    run = edge_trgl.train(budget_mb=500, data="my-images", epochs=5)
    print(run.summary["accuracy"]["chosen"])
    print(run.export(depth="last", int8=True).file)

Everything heavy happens in child processes. The memory of the calling process counts towards the budget, as that
of the command does.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_trgl.config.export_request import FORMS
from edge_trgl.config.flags import configuration
from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import EvaluateResult, evaluation_document
from edge_trgl.pipeline import preflight, trial
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.pipeline.turns import Listener
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.folder import RUNS, Run, begin_or_continue, numbered
from edge_trgl.runtime.errors import EdgeTrglError, UsageError, require_package
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes.supervisor import Message
from edge_trgl.runtime.records import read_record

if TYPE_CHECKING:
    from edge_trgl.pipeline.cleaning import Cleaned

__all__ = ["EdgeTrglError", "Limits", "Training", "begin", "clean", "plan", "plan_of", "train", "warn"]


def warn(message: Message) -> None:
    """Pass messages of kind `warning` to Python's `warnings`, and ignore others; the default listener."""
    if message["kind"] == "warning":
        warnings.warn(message["text"], stacklevel=2)


class Training:
    """A run, finished or not, and what can be done with it.

    Every method may raise EdgeTrglError, of the subclass that stands for the command's exit code.

    Args:
        folder: of the run.
        listener: called with every message; kinds are `phase`, `progress`, `warning` and others.
            `edge_trgl.cli.progress.Terminal()` shows them as the command does.

    Raises:
        UsageError: the folder is not a run.
    """

    def __init__(self, folder: Path | str, listener: Listener = warn) -> None:
        self._run = Run.open(Path(folder))
        self._listener = listener

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._run.folder

    @property
    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None before the run is done."""
        return self._run.summary()

    def resume(self, limits: Limits = Limits()) -> dict[str, Any]:  # noqa: B008 - it is frozen
        """Continue training from the last commit to the end; return the summary.

        Args:
            limits: limits that replace the run's own; a limit that is None stays as it was.
        """
        with self._pipeline() as pipeline:
            return pipeline.train(limits)

    def evaluate(self) -> dict[str, Any]:
        """Score the trained run again; return accuracies (fractions) at every depth, and the weights' SHA-256."""
        with self._pipeline() as pipeline:
            return evaluation_document(read_record(EvaluateResult, pipeline.evaluate()))

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
        """Write model.onnx and check it against the network; return the content of export.json.

        Args:
            depth: in modules; or chosen, last or all.
            target: the runtime that will run the model; None for the profile's.
            batch: samples at a time; or dynamic.
            exits: also export early-exit stages: a confidence threshold, or `auto:POINTS` of accuracy to lose.
            stages: the depths where stages end; None for every one with a classifier.
            int8: also write model.int8.onnx.
            fp16: also write model.fp16.onnx.
        """
        ends = stages if stages is None or isinstance(stages, str) else ",".join(map(str, stages))
        is_requested = {"int8": int8, "fp16": fp16}
        with self._pipeline() as pipeline:
            options = ExportOptions(
                depth=str(depth),
                target=target,
                batch=str(batch),
                exits=None if exits is None else str(exits),
                stages=ends,
                forms=tuple(form for form in FORMS if is_requested[form]),
            )
            return read_record(ExportRecord, pipeline.export(options))

    def report(self, against: Sequence[Path | str] = ()) -> Path:
        """Write report.html from the results so far; return its path.

        Args:
            against: folders of other trained runs, whose accuracies are drawn beside this one's.
        """
        Pipeline(self.folder, self._listener).report([str(folder) for folder in against])
        return self._run.report_file

    @contextlib.contextmanager
    def _pipeline(self) -> Iterator[Pipeline]:
        with self._run.locked():
            yield Pipeline(self.folder, self._listener)


def begin(folder: Path | str, config: RunConfig, listener: Listener = warn) -> Training:
    """Create a run in `folder`, or open the one begun there with the same configuration; train nothing.

    Raises:
        UsageError: torch is not installed, there is no such model or device, or something else is in the folder.
        InputError: a file or a package that the configuration names is not there.
    """
    require_package("torch", "training")
    if not Run(Path(folder)).config_file.is_file():
        preflight.check(config)
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
    """Train a network, or continue training one; every option has a default.

    Args:
        run: the run's folder; None for a new numbered one under runs/.
        profile: defaults for a board, by name or file.
        recipe: hyperparameters, by name.
        config_file: a TOML file with sections as in run.toml.
        settings: values by `section.key`, such as `{"train.momentum": 0.8}`.
        listener: as in `Training`.
        flags: the flags of `edge-trgl train`, with underscores: `budget_mb=500`, `no_transport=True`.
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
    """Return what `edge-trgl plan --json` prints. Options are as in `train`; nothing is trained."""
    return plan_of(_configuration(profile, recipe, config_file, settings, flags), listener).document()


def plan_of(config: RunConfig, listener: Listener = warn) -> PlannedRun:
    """Plan a configuration, in a temporary run folder under runs/.

    Raises:
        UsageError: torch is not installed, or there is no such model or device.
        InputError: a file or a package that the configuration names is not there.
    """
    check_plan(config)
    return read_record(PlannedRun, trial.plan_of(config.document(), listener))


def check_plan(config: RunConfig) -> None:
    """Check that a configuration can be planned here.

    Raises:
        UsageError: torch is not installed, or there is no such model or device.
        InputError: a file or a package that the configuration names is not there.
    """
    require_package("torch", "planning")
    preflight.check(config)


def clean(runs: Path | str = RUNS, *, dry_run: bool = False, measurements: bool = False) -> Cleaned:
    """Remove prepared data that are kept for other runs, and what killed plans and runs left behind.

    Args:
        runs: a folder that holds runs; a run that a process works on is left alone.
        dry_run: whether to remove nothing, only to return what would be.
        measurements: whether to remove the measurements in the user's cache folder as well.
    """
    # Imported here: what a run does not use takes no memory of its budget, and hashlib brings OpenSSL.
    from edge_trgl.pipeline import cleaning

    return cleaning.clean(Path(runs), dry_run=dry_run, measurements=measurements)


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
