"""Reproduction: what runs of paper tables are told, how results are kept and shown, and small tables for real."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from edge_trgl.cli import command
from edge_trgl.cli.configured import read_configuration
from edge_trgl.config.flags import FLAGS
from edge_trgl.config.sources import RECIPES
from edge_trgl.run.facts import Result, Scores, Work
from edge_trgl.run.folder import Run
from edge_trgl.runtime.storage.state import Metric

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tables(tool):
    return tool("reproduce.tables").TABLES


@pytest.fixture
def job(tool, tmp_path):
    """Makes what the runs of a table share."""

    def make(table, **changes):
        settings = {"changes": (), "faithful": False, "quick": False, "device": "cpu", "budget_mb": "auto"}
        settings |= changes
        return tool("reproduce.runs").Job(table=table, runs=tmp_path, **settings)

    return make


@pytest.fixture
def config_of(tool, tables, job):
    """The configuration of a run of a table."""

    def resolved(table, case, row, **changes):
        runs = tool("reproduce.runs")
        asked = runs.row_of(tables[table], row)
        flags = runs.flags_of(tables[table], job(table, **changes), tables[table].cases[case], asked, 3)
        given = command.verb_named("train").make_context("train", list(flags)).params
        return read_configuration({name: given[name] for name in given if name in OPTIONS})

    return resolved


OPTIONS = {"profile", "recipe", "config_file", "settings", *(flag.name for flag in FLAGS)}


# ---- what the runs are told


def test_every_table_has_a_recipe_and_every_line_its_figures(tables):
    for name, table in tables.items():
        assert (RECIPES / f"{name}.toml").is_file()
        assert {*table.default, table.figure} <= set(table.cases)
        for case in table.cases.values():
            assert set(case.paper) <= set(table.rows)
            for mean, half in case.paper.values():
                assert 0 < half < 5 < mean < 100


def test_every_run_of_every_table_can_be_configured(tables, config_of):
    for name, table in tables.items():
        for case in table.cases:
            for row in table.rows:
                for faithful in (False, True):
                    config = config_of(name, case, row, faithful=faithful)
                    assert config.train.seed == 3
                    assert config.transport.enabled == ("VanGL" not in row)
                    assert config.model.shared_head == (name == "table14" and row != "end-to-end")
                    assert config.model.shared_statistics != row.endswith("-own-statistics")
                    assert (config.train.regime == "end-to-end") == (row == "end-to-end")
                    assert (config.train.regime == "multi-lap") == row.startswith("multi-lap")


def test_a_line_trains_on_all_its_images_and_validates_on_others(config_of):
    some, everything = (config_of("table14", case, "TRGL").data for case in ("150", "60000"))
    assert (some.limit, some.choose_on) == (150, "unused")
    assert (everything.limit, everything.choose_on) == (None, "half-test")


def test_a_row_may_have_its_own_tau(config_of):
    assert config_of("table14", "150", "TRGL@5").transport.tau == 5
    assert config_of("table3", "2", "TRGL").transport.tau == 50
    assert config_of("table3", "2", "TRGL@0.03").transport.tau == 0.03
    assert config_of("table3", "4", "TRGL").model.modules == 4


def test_the_authors_protocol_and_other_changes(config_of):
    config = config_of("table13", "1000", "TRGL", faithful=True, changes=("model.width=16",), device="cuda")
    assert (config.train.prefix, config.train.cache, config.train.device) == ("train-mode", "none", "cuda")
    assert (config.data.limit, config.data.choose_on, config.model.width) == (1000, "half-test", 16)
    assert config.budget.mb == "auto"


@pytest.mark.parametrize("row", ["Van", "TRGL@", "TRGL@fast", "@5"])
def test_a_row_that_there_is_not_is_refused(tool, tables, row):
    with pytest.raises(tool("reproduce.tables").WrongChoiceError):
        tool("reproduce.runs").row_of(tables["table14"], row)


# ---- results


def found(row, seed, last, *, case="150", depths=(0.5, 0.7)):
    scores = {"last": last, "best": max(depths), "chosen": 0.6, "chosen_depth": 1, "validation": 0.65}
    scores |= {"last_tenth": last, "last_tenth_per_depth": [*depths, last]}
    return {"case": case, "row": row, "seed": seed, **scores, "test_per_depth": [*depths, last]}


def test_ours_stand_beside_the_papers_in_the_tables_order(tool, tables):
    summary = tool("reproduce.summary")
    runs = [
        found("TRGL@5", 0, 0.9),
        *(found("TRGL", seed, last) for seed, last in enumerate((0.84, 0.86, 0.88))),
        found("VanGL", 0, 0.8, case="300"),
        found("VanGL", 0, 0.8),
    ]
    items = summary.summarise(tables["table14"], runs)
    # The paper's table begins with the largest.
    assert [(item["case"], item["row"]) for item in items] == [
        ("300", "VanGL"),
        ("150", "VanGL"),
        ("150", "TRGL"),
        ("150", "TRGL@5"),
    ]
    trgl = items[2]
    assert trgl["paper"] == [0.8748, 0.0042]
    assert trgl["last"] == [pytest.approx(0.86), pytest.approx(0.0497, abs=1e-4)]
    assert trgl["per_depth"][-1] == trgl["last"]
    assert (trgl["seeds"], items[3]["paper"], items[3]["last"]) == (3, None, [0.9, None])
    document = {"table": "table14", "title": "t", "case_title": "train size", "scored": "last"}
    text = summary.text_of({**document, "changes": ["with model.width=8"], "notes": [], "rows": items})
    assert "with model.width=8" in text
    line = next(line for line in text.splitlines() if "TRGL " in line)
    assert "87.48 ± 0.42" in line
    assert "86.00 ± 4.97" in line
    assert "-1.48" in line


def test_a_row_is_compared_with_its_like_without_the_term_seed_by_seed(tool, tables):
    last = {
        "VanGL": (0.5, 0.6, 0.7),
        "TRGL": (0.51, 0.62, 0.73),
        "TRGL@5": (0.5,),
        "end-to-end": (0.4, 0.5, 0.6, 0.9),
        "VanGL-own-statistics": (0.3,),
        "TRGL-own-statistics": (0.35,),
    }
    runs = [found(row, seed, value) for row, values in last.items() for seed, value in enumerate(values)]
    items = tool("reproduce.summary").summarise(tables["table14"], [*runs, found("TRGL", 0, 0.9, case="300")])
    over = {(item["case"], item["row"]): item["over_vangl"] for item in items}
    assert over["150", "VanGL"] is over["300", "TRGL"] is None
    assert over["150", "TRGL"] == [pytest.approx(0.02), pytest.approx(4.303 * 0.01 / 3**0.5)]
    assert over["150", "TRGL@5"] == [pytest.approx(0.0), None]
    assert over["150", "end-to-end"] == [pytest.approx(-0.1), pytest.approx(0.0, abs=1e-9)]
    assert over["150", "TRGL-own-statistics"] == [pytest.approx(0.05), None]


def test_the_best_block_is_said_to_be_chosen_on_test_images(tool, tables):
    items = tool("reproduce.summary").summarise(tables["table12"], [found("TRGL", 0, 0.3, case="5000")])
    document = {"table": "table12", "title": "t", "case_title": "train size", "scored": "best"}
    text = tool("reproduce.summary").text_of({**document, "changes": [], "notes": [], "rows": items})
    assert "best block, chosen on the test images" in text
    assert "70.00" in text


def test_notes_say_what_was_chosen_on(tool, tables, job):
    notes = tool("reproduce.summary").notes
    some, everything = found("TRGL", 0, 0.5), found("TRGL", 0, 0.5, case="60000")

    def told(runs, **changes):
        text = " ".join(notes(tables["table14"], runs, job("table14", **changes)))
        return ["left over" in text, "half of the test images" in text, "authors' protocol" in text]

    assert told([some]) == [True, False, False]
    assert told([everything]) == [False, True, False]
    assert told([some, everything]) == [True, True, False]
    assert told([some], faithful=True) == [False, True, True]


def test_a_result_takes_the_place_of_an_earlier_one_and_leaves_others(tool):
    reproduce = tool("reproduce.__main__")
    runs = [
        found("TRGL", 0, 0.1),
        found("TRGL", 1, 0.2),
        found("VanGL", 0, 0.3),
        found("TRGL", 0, 0.4, case="300"),
    ]
    again = reproduce._with(runs, found("TRGL", 0, 0.9))
    assert sorted(run["last"] for run in again) == [0.2, 0.3, 0.4, 0.9]


def test_other_settings_have_results_of_their_own(tool, tables, tmp_path):
    reproduce = tool("reproduce.__main__")
    flags = ("table14", "--set", "data.flip=false", "model.pretrained=a/b", "--out", str(tmp_path))
    options = reproduce._parser().parse_args([*flags, "--runs", str(tmp_path / "runs")])
    job, document = reproduce._job(options), reproduce._begun(options, tables["table14"])
    assert job.changes == ("data.flip=false", "model.pretrained=a/b")
    assert document["table"] == "table14-data.flip=false-model.pretrained=a_b"
    assert document["changes"] == ["with data.flip=false", "with model.pretrained=a/b"]
    assert job.runs == tmp_path / "runs" / document["table"]


def test_a_finished_run_is_scored_again_without_training_and_made_small(tool, tables, job, tmp_path, monkeypatch):
    runs, table = tool("reproduce.runs"), tables["table14-own-heads"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    name = "table14-own-heads"
    flags = runs.flags_of(table, job(name), table.cases["150"], runs.row_of(table, "TRGL"), 0)
    settings = tool("common.processes").output_of(tool("common.processes").edge_trgl("train", *flags, "--dry-run"))
    run = Run(tmp_path / "150-TRGL-0")
    run.modules.mkdir(parents=True)
    run.config_file.write_text(settings)
    run.summary_file.write_text(json.dumps({"time_s": 2.0, "weights_sha256": "abc"}))
    scores = Scores(
        first_depth=1,
        per_depth=(0.6, 0.4),
        chosen_depth=1,
        chosen=0.7,
        last=0.5,
        test_per_depth=(0.7, 0.5),
        chosen_on="validation",
    )
    facts = run.facts()
    facts.result = Result(scores=scores, weights_sha256="abc", work=Work(), peak_mb=1.0, method="VmHWM")
    facts.close()
    result = runs.result(table, job(name), "150", "TRGL", 0)
    assert (result["last"], result["best"], result["chosen"], result["validation"]) == (0.5, 0.7, 0.7, 0.4)
    assert (result["recipe"], result["device"], result["seconds"]) == (name, "cpu", 2.0)
    assert "last_tenth" not in result
    assert not run.modules.exists()
    assert run.config_file.exists()
    with pytest.raises(tool("common.processes").CommandError, match="another configuration"):
        runs.result(table, job(name, changes=("model.width=8",)), "150", "TRGL", 0)


def test_the_mean_of_the_last_tenth_is_that_of_its_looks(tool):
    def look(module, epoch, num_correct):
        zeros = dict.fromkeys(("loss_sum", "transport_sum", "transport_gradient", "other_gradient", "lr"), 0.0)
        return Metric(
            kind="validation",
            module=module,
            epoch=epoch,
            position=0,
            num_images=10,
            num_correct=num_correct,
            **zeros,
        )

    looks = [
        look(1, 26, 1),
        look(2, 26, 9),
        *(look(k, e, n) for e, pair in ((27, (4, 6)), (29, (5, 8))) for k, n in zip((1, 2), pair, strict=True)),
    ]
    found = tool("reproduce.runs")._last_tenth(looks, 30)
    assert found == {
        "last_tenth": pytest.approx(0.7),
        "last_tenth_per_depth": [pytest.approx(0.45), pytest.approx(0.7)],
    }
    assert tool("reproduce.runs")._last_tenth([], 30) == {}


def test_the_samples_table_gives_mean_and_interval_of_both_test_sets(tool):
    sample = tool("reproduce.sample")
    results = [
        {"row": "TRGL", "seed": seed, "sample": {"chosen": accuracy, "last": 0.5}}
        for seed, accuracy in enumerate((0.80, 0.82, 0.84))
    ]
    (item,) = sample.summarise(results)
    assert (item["row"], item["test"], item["seeds"]) == ("TRGL", "sample", 3)
    text = sample.text_of({"table": "sample", "rows": [item]})
    assert "82.00 ± 4.97" in text
    assert "50.00 ± 0.00" in text


# ---- figure 2


def kept(tool, folder, table, rows, *, case, name=None, changes=()):
    spec = tool("reproduce.tables").TABLES[table]
    runs = [found(row, seed, 0.8 + seed / 100, case=case) for row in rows for seed in range(2)]
    document = {
        "table": name or table,
        "of": table,
        "title": spec.title,
        "case_title": spec.case_title,
        "changes": list(changes),
        "rows": tool("reproduce.summary").summarise(spec, runs),
    }
    (folder / f"{name or table}.json").write_text(json.dumps(document))


def test_the_figure_has_a_panel_for_each_table_that_has_both_rows(tool, tmp_path):
    figure = tool("reproduce.figure2")
    both = ("VanGL", "TRGL", "end-to-end")
    kept(
        tool, tmp_path, "table13", both, case="1000", name="table13-model.width=8", changes=["with model.width=8"]
    )
    kept(tool, tmp_path, "table3", both, case="16")
    kept(tool, tmp_path, "table14", ("TRGL",), case="150")
    kept(tool, tmp_path, "table12", both, case="50000")
    kept(tool, tmp_path, "table10", both[:2], case="50000", name="table10-quick")
    panels = figure.panels(tmp_path, quick=False)
    assert [panel["table"] for panel in panels] == ["table3", "table13-model.width=8"]
    assert "with model.width=8" in panels[1]["title"]
    assert panels[0]["seeds"] == {"VanGL": 2, "TRGL": 2}
    assert [mean for mean, _ in panels[0]["curves"]["TRGL"]] == [0.5, 0.7, pytest.approx(0.805)]
    assert [panel["table"] for panel in figure.panels(tmp_path, quick=True)] == ["table10-quick"]
    figure.draw(panels, tmp_path / "figure2.png")
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")


# ---- for real


WRONG = {
    "a line that there is not": (["table14", "--cases", "151"], "choose of 60000"),
    "a row that there is not": (["table14", "--rows", "E2E"], "choose of VanGL, TRGL, VanGL-own-statistics"),
    "seeds that there are not": (["table13", "--first-seed", "28"], "the seeds of a table are 0 to 29"),
    "no data": (["table13"], "needs the image set cifar10"),
    "lines of the sample": (["sample", "--cases", "150"], "--cases is for tables of the paper"),
    "a figure of nothing": (["figure2"], "run a table first"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_choice_is_told_before_anything_is_done(run_tool, tmp_path, case):
    arguments, text = WRONG[case]
    where = ("--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"))
    done = run_tool("reproduce", *arguments, *where, cwd=tmp_path, EDGE_TRGL_DATA=str(tmp_path))
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tool
def test_reproduce_the_sample_quick(run_tool, tmp_path):
    arguments = ("sample", "--quick", "--json", "--out", str(tmp_path / "results"))
    done = run_tool("reproduce", *arguments, cwd=tmp_path, EDGE_TRGL_DATA=str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "results" / "sample-quick.json").read_text())
    assert [item["row"] for item in document["rows"]] == ["VanGL", "TRGL", "end-to-end"]
    assert len({run["weights_sha256"] for run in document["runs"]}) == 3


@pytest.mark.tool
def test_reproduce_a_table_quick_in_two_calls_and_draw_it(run_tool, tmp_path):
    # The images that come with the package have the form of MNIST.
    shutil.copytree(ROOT / "edge_trgl" / "data" / "sample", tmp_path / "mnist")

    def reproduce(*arguments):
        where = ("--quick", "--json", "--out", str(tmp_path / "results"))
        environment = {"EDGE_TRGL_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = run_tool("reproduce", *arguments, *where, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = reproduce("table14", "--rows", "VanGL")
    both = reproduce("table14", "--rows", "TRGL", "end-to-end", "--first-seed", "1")
    assert [item["row"] for item in both["rows"]] == ["VanGL", "TRGL", "end-to-end"]
    assert all(0 < run["last_tenth"] < 1 for run in both["runs"])
    assert both["rows"][0] == first["rows"][0]
    assert [run["seed"] for run in both["runs"]] == [0, 1, 1]
    assert len(both["runs"][0]["test_per_depth"]) == 3
    assert not (tmp_path / "runs" / "reproduce" / "table14-quick" / "150-TRGL-1" / "modules").exists()
    figure = reproduce("figure2")
    assert Path(figure["file"]).read_bytes().startswith(b"\x89PNG")
    assert set(figure["panels"][0]["curves"]) == {"VanGL", "TRGL"}
