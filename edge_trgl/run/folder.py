"""The folder of a run: its configuration, its database and its files. Nothing is written outside it."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edge_trgl.config import sources
from edge_trgl.config.export_request import MODEL_FILE
from edge_trgl.config.sections import RunConfig
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.lock import locked
from edge_trgl.runtime.errors import StorageError, UsageError, command
from edge_trgl.runtime.storage import files

RUNS = Path("runs")
"""The folder of numbered runs, in the current one."""

PREPARED = ".prepared"
"""The folder beside numbered runs that keeps prepared data for all of them."""

DATASET = "dataset.json"
"""The file that makes prepared data complete."""

PLANNING = ".plan-"
"""What the names of temporary runs begin with; the number of their process follows."""


class Run:
    """The paths in a run's folder, and the content of its small files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "run.toml"
        self.state_file = folder / "state.db"
        self.summary_file = folder / "summary.json"
        self.report_file = folder / "report.html"
        self.onnx_file = folder / MODEL_FILE
        self.blocks_file = folder / "blocks.safetensors"
        self.exits_folder = folder / "model.exits"
        self.export_file = folder / "export.json"
        self.data = folder / "data"
        self.dataset_file = self.data / DATASET
        self.modules = folder / "modules"
        self.boundaries = folder / "boundaries"
        self.scratch = folder / "scratch"

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run.

        Raises:
            UsageError: the folder is not a run.
        """
        run = cls(folder)
        if not run.config_file.is_file():
            raise UsageError(
                f"{folder} is not a run: it has no run.toml",
                hint="Give the folder that train named, such as runs/0001.",
            )
        return run

    @classmethod
    def create(cls, folder: Path, config: RunConfig) -> Run:
        """Create a run in an empty or missing folder.

        Raises:
            UsageError: the folder contains something else, or its name is not valid UTF-8.
            StorageError: the folder cannot be written.
        """
        if not files.is_utf8(str(folder)):
            raise UsageError(f"{folder} is not valid UTF-8", hint="Choose another --run.")
        # A kill while run.toml is written leaves this temporary file behind.
        unfinished = files.temporary_of(cls(folder).config_file)
        if folder.exists() and (not folder.is_dir() or any(path != unfinished for path in folder.iterdir())):
            raise UsageError(
                f"{folder} is neither a run nor empty",
                hint="Choose another --run, or leave it out for a new folder.",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{folder} cannot be created: {error.strerror}", hint="Choose another --run."
            ) from error
        import tomli_w  # here, for its memory: most processes only read a run

        run = cls(folder)
        files.write_durable(run.config_file, [tomli_w.dumps(config.document()).encode()])
        return run

    def config(self) -> RunConfig:
        """Return the complete configuration that the run was created with."""
        return sources.resolve(sources.read_toml(self.config_file))

    def facts(self) -> RunFacts:
        """Open the run's database, and create it if there is none."""
        return RunFacts(self.state_file)

    def uncommitted(self, facts: RunFacts) -> list[Path]:
        """Return the files that no commit names, which no start of training needs. No job may be running."""
        named = {
            self.modules: {file.name for file in facts.modules().values()},
            self.boundaries: {record.file for record in facts.boundaries()},
            self.scratch: set(),
        }
        return [
            path
            for folder, names in named.items()
            if folder.is_dir()
            for path in files.list_folder(folder)
            if path.name not in names
        ]

    def remove_uncommitted(self, facts: RunFacts) -> None:
        """Remove the files that no commit names, as the next start of training would. No job may be running."""
        for path in self.uncommitted(facts):
            files.remove(path)

    def summary(self) -> dict[str, Any] | None:
        """Read summary.json; None before the run is done."""
        if not self.summary_file.is_file():
            return None
        document: dict[str, Any] = json.loads(self.summary_file.read_text())
        return document

    def smaller_file(self, form: str) -> Path:
        """Return the path of the model in a smaller form, such as model.int8.onnx."""
        return self.onnx_file.with_suffix(f".{form}{self.onnx_file.suffix}")

    def locked(self) -> AbstractContextManager[None]:
        """Lock the run for this process, see `lock.locked`."""
        return locked(self.folder)


def begin_or_continue(run_folder: Path, config: RunConfig) -> Run:
    """Create a run in `run_folder`, or open the one that is there if its configuration is the same.

    Raises:
        UsageError: the configuration differs; the message lists the differences.
    """
    if not Run(run_folder).config_file.is_file():
        return Run.create(run_folder, config)
    run = Run.open(run_folder)
    # The board's numbers only feed the plan, which an existing run has already.
    existing, requested = ({**settings.document(), "board": {}} for settings in (run.config(), config))
    differences = sources.differences(existing, requested)
    if differences:
        raise UsageError(
            f"{run_folder} was begun with another configuration: {'; '.join(differences)}",
            hint=f"Another --run begins anew; to go on as it was begun: {command('resume', run_folder)}",
        )
    return run


def discard_unplanned(folder: Path) -> None:
    """Remove a run that ended with a mistake before it had a plan: there is nothing in it to continue."""
    facts = Run(folder).facts()
    is_planned = facts.is_planned
    facts.close()
    if not is_planned:
        import shutil  # here, for its memory: it loads four compressors

        shutil.rmtree(folder)


def numbered(parent: Path = RUNS) -> Path:
    """Return the next free numbered folder under `parent`: 0001, 0002, ..."""
    numbers = [int(path.name) for path in _numbered_folders(parent)]
    return parent / f"{max(numbers, default=0) + 1:04d}"


def prepared_cache() -> Path | None:
    """Return the folder that keeps prepared data for all runs; None if the current folder has no numbered runs.

    A run elsewhere has no place that other runs would look in.
    """
    return RUNS / PREPARED if RUNS.is_dir() else None


def newest_unfinished(parent: Path = RUNS) -> Run | None:
    """Return the newest numbered run that has no summary; None if there is none."""
    runs = [Run(path) for path in sorted(_numbered_folders(parent), key=lambda path: -int(path.name))]
    return next((run for run in runs if run.config_file.is_file() and not run.summary_file.is_file()), None)


def abandoned_plans(runs: Path = RUNS) -> list[Path]:
    """Return the temporary runs of `plan` whose processes were killed."""
    if not runs.is_dir():
        return []
    plans = [path for path in runs.iterdir() if re.fullmatch(rf"{re.escape(PLANNING)}\d+", path.name)]
    return [path for path in plans if not _is_alive(path.name.removeprefix(PLANNING)) and not _is_locked(path)]


def _is_alive(process: str) -> bool:
    return Path("/proc", process).exists()


def _is_locked(folder: Path) -> bool:
    """Whether a process holds a run: its number alone says nothing of a process in another container."""
    try:
        with Run(folder).locked():
            return False
    except UsageError:
        return True


def _numbered_folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and re.fullmatch(r"\d+", path.name)]
