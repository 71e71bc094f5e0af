"""Reproduce the paper's comparison of TRGL with VanGL (no transport term) and end-to-end training.

    python -m tools.reproduce TABLE [--cases NAME ...] [--rows NAME[@TAU] ...] [--seeds N] [--first-seed N]
                              [--set KEY=VALUE ...] [--faithful] [--device DEVICE] [--budget-mb N] [--runs DIR]
                              [--out DIR] [--json] [--quick]

`sample`: the K-M 10-1 net of width 32 on the 5,000 images that come with the package, the default recipe, three
seeds. The table gives test accuracies, mean and 95 % interval over the seeds, at the depth chosen on validation
images and at the last: on the sample's own 1,000 test images and, where the full set is in
${EDGE_TRGL_DATA:-~/.cache/edge-trgl-data}/fashion-mnist, on its 10,000 by the same weights.

`table3`, `table10` ... `table14`: tables of the paper, by the recipes of their names (`edge-trgl train --recipe
table14`), where their image sets are in that folder (stl10, cifar10, cifar100, mnist). --cases are train sizes (or
numbers of modules, in table3), --rows methods, TRGL@5 being TRGL with --tau 5. A line of n images trains on n: a
subset balanced over the classes, another one for each seed; its accuracies are those of the whole test set. What
stands for validation are training images that are left over: values of tau are compared on them. A line of all
images leaves none over: its depth is chosen on half of the test set, which changes neither the last nor the best
block's figure. --faithful takes the
authors' protocol instead, --set changes other settings (model.width=16): their results have files of their own.
The paper's figure stands beside ours. Results of earlier calls for other lines, rows and seeds are kept.

`figure2`: accuracy after each module, VanGL against TRGL, with 95 % bands, from the results that --out keeps:
figure2.png.

In table14, an encoder is trained without labels first, one for each seed. Its shared classifier swings from epoch
to epoch: accuracies are of the last tenth of the epochs, on left-over images; `last` is the test accuracy after
the running statistics of each depth were measured again. The rows with own statistics have them for each depth
in training, too.

Every run is `edge-trgl train` in a process of its own, under --runs; a finished one is not trained again, an
unfinished one goes on. Of the runs of paper tables, weights are not kept. It shows whatever comes out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tools.common.images import CACHE
from tools.common.intervals import T_975
from tools.common.machine import commit, today
from tools.common.options import command_line
from tools.common.programs import RESULTS
from tools.reproduce import figure2, sample
from tools.reproduce.runs import Job, result, row_of
from tools.reproduce.summary import notes, summarise, text_of
from tools.reproduce.tables import TABLES, Table, WrongChoiceError


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        document, text = {"sample": _sample, "figure2": _figure}.get(options.table, _paper)(options)
    except WrongChoiceError as error:
        parser.error(str(error))
    print(json.dumps(document, indent=1) if options.json else text)
    return 0


def _sample(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    _refuse_parts(options)
    name = "sample-quick" if options.quick else "sample"
    document = sample.document(name, options.seeds, options.runs / name, quick=options.quick)
    _write(document, options.out)
    return document, sample.text_of(document)


def _refuse_parts(options: argparse.Namespace) -> None:
    """Raises WrongChoiceError where there is a flag that only tables of the paper have."""
    for flag in ("cases", "rows", "first_seed", "set", "faithful"):
        if getattr(options, flag):
            raise WrongChoiceError(f"--{flag.replace('_', '-')} is for tables of the paper")


def _paper(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    table = TABLES[options.table]
    seeds, (cases, rows) = _seeds(options), _asked(options, table)
    job, document = _job(options), _begun(options, table)
    for seed in seeds:
        for case in cases:
            for row in rows:
                found = result(table, job, case, row, seed)
                document = _begun(options, table)  # anew: calls for other lines or seeds may run beside this one
                runs = _with(document["runs"], found)
                document |= {"runs": runs, "rows": summarise(table, runs), "notes": notes(table, runs, job)}
                _write(document, options.out)
    return document, text_of(document)


def _seeds(options: argparse.Namespace) -> range:
    """Raises WrongChoiceError where a seed has no place in an interval of at most thirty."""
    seeds = range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds))
    if seeds.start < 0 or seeds.stop > len(T_975) + 1:
        raise WrongChoiceError(f"the seeds of a table are 0 to {len(T_975)}")
    return seeds


def _asked(options: argparse.Namespace, table: Table) -> tuple[list[str], list[str]]:
    """The lines and rows of the table that are wanted.

    Raises:
        WrongChoiceError: there is no such line or row, or no data.
    """
    cases = options.cases or list(table.default[:1] if options.quick else table.default)
    unknown = [case for case in cases if case not in table.cases]
    if unknown:
        raise WrongChoiceError(f"{options.table} has no line {unknown[0]}; choose of {', '.join(table.cases)}")
    rows = options.rows or list(table.rows)
    for row in rows:
        row_of(table, row)
    if not (CACHE / table.data).is_dir():
        raise WrongChoiceError(f"{options.table} needs the image set {table.data} in {CACHE / table.data}")
    return cases, rows


def _name(options: argparse.Namespace) -> str:
    changes = (change.replace("/", "_") for change in options.set)
    faithful, quick = (("faithful",) if options.faithful else ()), (("quick",) if options.quick else ())
    return "-".join((options.table, *changes, *faithful, *quick))


def _job(options: argparse.Namespace) -> Job:
    name = _name(options) + ("" if options.device == "cpu" else f"-{options.device}")
    runs = options.runs / name
    runs.mkdir(parents=True, exist_ok=True)
    return Job(
        table=options.table,
        changes=tuple(options.set),
        faithful=options.faithful,
        quick=options.quick,
        device=options.device,
        budget_mb=options.budget_mb,
        runs=runs,
    )


def _begun(options: argparse.Namespace, table: Table) -> dict[str, Any]:
    """The document of these settings, with the runs that an earlier call kept."""
    file = options.out / f"{_name(options)}.json"
    changes = [f"with {change}" for change in options.set]
    changes += ["a try with a tiny net for one epoch"] if options.quick else []
    return {
        "date": today(),
        "commit": commit(),
        "table": _name(options),
        "of": options.table,
        "title": table.title,
        "case_title": table.case_title,
        "scored": table.scored,
        "changes": changes,
        "notes": [],
        "rows": [],
        "runs": json.loads(file.read_text())["runs"] if file.is_file() else [],
    }


def _with(runs: list[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """`runs` with one more, in place of an earlier one of the same line, row and seed."""
    key = ("case", "row", "seed")
    return [run for run in runs if any(run[name] != found[name] for name in key)] + [found]


def _figure(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    _refuse_parts(options)
    found = figure2.panels(options.out, quick=options.quick)
    if not found:
        raise WrongChoiceError(f"there are no results of VanGL and TRGL in {options.out}; run a table first")
    file = options.out / ("figure2-quick.png" if options.quick else "figure2.png")
    figure2.draw(found, file)
    return {"file": str(file), "panels": found}, "\n".join([str(file), *(panel["title"] for panel in found)])


def _write(document: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{document['table']}.json").write_text(json.dumps(document, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = command_line("reproduce", __doc__)
    parser.add_argument("table", choices=["sample", *TABLES, "figure2"], nargs="?", default="sample")
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="NAME", help="lines of the table [the small ones]"
    )
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help="VanGL, TRGL, TRGL@5, ... [all]")
    numbers = range(1, len(T_975) + 2)
    parser.add_argument("--seeds", type=int, choices=numbers, default=3, metavar="N", help="runs per row [3]")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="first seed, for paper tables [0]")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings that replace those of the table"
    )
    parser.add_argument("--faithful", action="store_true", help="use the authors' protocol")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device, for paper tables [cpu]")
    parser.add_argument("--budget-mb", default="auto", help="budget of each run, for paper tables [auto]")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/reproduce"), help="folder of the runs [runs/reproduce]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [tools/results]")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch of a small net, to try the tool")
    return parser


if __name__ == "__main__":
    sys.exit(main())
