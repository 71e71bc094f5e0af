"""What the pages say exists: commands parse, names and links lead somewhere, snippets work."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from edge_trgl.cli.command import VERBS, cli, verb_named
from edge_trgl.cli.configured import MISTAKES
from edge_trgl.config.flags import FLAGS, configuration
from edge_trgl.config.sections import RunConfig
from edge_trgl.config.sources import parse_setting, read_profile, read_recipes
from edge_trgl.runtime.errors import UsageError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OTHER_OPTIONS = {"--no-deps"}
"""Of pip."""


def pages():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in sorted(listed.stdout.split("\0")) if name and (ROOT / name).is_file()]


PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


@cache
def blocks(page, *languages):
    found = FENCE.findall(page.read_text())
    return [text for language, text in found if language in languages]


@cache
def inline_code(page):
    without_blocks = FENCE.sub("", page.read_text())
    return [" ".join(text.split()) for text in INLINE.findall(without_blocks)]


def typed(page):
    """The command lines of a page: what follows a prompt, and inline code."""
    lines = [
        line.removeprefix("$ ")
        for text in blocks(page, "console")
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("$ ")
    ]
    return [shlex.split(part, comments=True) for text in (*lines, *inline_code(page)) for part in commands(text)]


def commands(text):
    """The parts of `A && B` and `A | B` that start with a program we know."""
    known = re.compile(r"(?:\.venv/bin/)?(edge-trgl|python|make|pip)\s+[^\s]")
    parts = re.split(r"&&|\|", text)
    return [part.strip().removeprefix(".venv/bin/") for part in parts if known.match(part.strip())]


def of(page, program):
    return [words[1:] for words in typed(page) if words[0] == program]


def parsed(words):
    """The parameters of one verb's command line; the verb is not called.

    Raises:
        click.ClickException: the command would not be taken.
    """
    with cli.make_context("edge-trgl", words, ignore_unknown_options=True, allow_interspersed_args=False) as group:
        if words[0].startswith("-"):
            return {}
        verb = cli.get_command(group, words[0])
        if verb is None:
            raise click.UsageError(f"there is no verb {words[0]}")
        context = verb.make_context(words[0], words[1:], parent=group)
        if MISTAKES in context.meta:
            raise click.UsageError("; ".join(context.meta[MISTAKES]))
        return context.params


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page):
    for words in of(page, "edge-trgl"):
        words = [word for word in words if word != "..."]
        try:
            given = parsed(words)
        except (click.MissingParameter, click.exceptions.Exit):
            given = {}  # inline code may leave out what a verb works on, and --help-all has done its work
        except click.ClickException as error:
            pytest.fail(f"edge-trgl {' '.join(words)}: {error.format_message()}")
        check_names(given)
        check_values(given)


def check_values(given):
    """Options of a configuration have values that it takes; a page may leave out what they go with."""
    flags = {flag.name: given[flag.name] for flag in FLAGS if flag.name in given}
    section_of = {flag.name: flag.key.partition(".") for flag in FLAGS}
    for name, value in flags.items():
        try:
            configuration({name: value})
        except UsageError as error:
            section, _, key = section_of[name]
            assert f"{section}.{key} must be" not in error.message, error.message


def check_names(given):
    for text in given.get("settings") or ():
        for section, values in parse_setting(text).items():
            known = {field.name for field in fields(getattr(RunConfig(), section))}
            assert set(values) <= known, text
    if given.get("recipe"):
        read_recipes(given["recipe"])
    if given.get("profile") and given["profile"] != "mine":
        read_profile(given["profile"])


@pytest.mark.parametrize("page", PAGES)
def test_tools_exist(page):
    for words in of(page, "python"):
        if words[0] == "-m":
            path = ROOT.joinpath(*words[1].split("."))
            exists = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
            assert exists or words[1] in ("pip", "venv", "pytest"), " ".join(words)
        elif words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), " ".join(words)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in of(page, "make"):
        assert words[0] in targets or "=" in words[0], f"make {words[0]}"


@cache
def all_options():
    """Every option of every verb, and of the tools."""
    found = {
        option
        for verb in VERBS
        for param in verb_named(verb).params
        for option in (*param.opts, *param.secondary_opts)
    }
    for tool in (ROOT / "tools").rglob("*.py"):
        found |= set(re.findall(r"\"(--[a-z][a-z0-9-]*)\"", tool.read_text()))
    return found | {"--help", "--help-all", "--version"} | OTHER_OPTIONS


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page):
    for text in inline_code(page):
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", text):
            assert option in all_options(), text


def slugs(page):
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in slugs(target), link


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    own = tuple(f"{folder}/" for folder in ("edge_trgl", "runtime", "tools", "tests", "profiles"))
    for text in inline_code(page):
        is_example = f"# {text}" in page.read_text()  # a file that a block on the page shows
        if is_example or any(mark in text for mark in (" ", "{", "*", "NAME", "::")):
            continue
        if text.startswith(own) or re.fullmatch(r"[\w./-]+\.py", text):
            path = text.split(":")[0]
            assert any((base / path).exists() for base in (page.parent, ROOT, ROOT / "edge_trgl")), text


def test_every_setting_is_named():
    text = "\n".join((ROOT / page / "README.md").read_text() for page in ("edge_trgl/engine", "edge_trgl/method"))
    for section in fields(RunConfig):
        if section.name != "board":  # a profile's, which probe writes
            for field in fields(getattr(RunConfig(), section.name)):
                named = f"`{field.name}`" in text or f"`{section.name}.{field.name}`" in text
                assert named or f"--{field.name}`" in text, f"{section.name}.{field.name}"


def test_the_map_has_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {
        path.parent.name for path in (ROOT / "edge_trgl").glob("*/__init__.py") if not path.parent.is_symlink()
    }
    assert rooms <= set(re.findall(r"`edge_trgl/(\w+)/`", text))


def test_the_table_of_boards_is_that_of_the_profiles():
    text = (ROOT / "profiles/README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w[\w-]*)` \|(.*)$", text, re.MULTILINE))
    files = {file.stem: file for file in (ROOT / "profiles").glob("*.toml")}
    assert set(rows) == set(files)
    for name, file in files.items():
        profile = read_profile(str(file))
        board = profile["board"]
        memory = f"{board['usable_mb']:,.0f}" if "usable_mb" in board else ""
        cells = [cell.strip() for cell in rows[name].split("|")]
        assert cells[0] == memory
        assert cells[1].startswith(profile.get("train", {}).get("device", "cpu"))
        assert cells[2].startswith(board.get("storage", ""))
        assert cells[3] == board.get("target", "")


def test_the_first_page_is_short():
    assert len(README.read_bytes()) <= 8192


@pytest.mark.parametrize("page", PAGES)
def test_python_is_importable(page):
    for text in blocks(page, "python"):
        tree = ast.parse(text)
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_json_can_be_read(page):
    for text in blocks(page, "json"):
        json.loads(text)


def test_the_networks_example_builds_a_chain():
    (text,) = [text for text in blocks(ROOT / "edge_trgl/networks/README.md", "python") if "def net(" in text]
    names = {}
    exec(text, names)
    chain = names["net"]((3, 32, 32), 10)
    assert len(chain) == 4


@pytest.mark.slow
def test_the_first_page_in_python_runs(tmp_path):
    (text,) = blocks(README, "python")
    draw = np.random.default_rng(0)
    for name in ("cat", "owl"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(40):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    ended = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "runs").glob("*/model.onnx"))
