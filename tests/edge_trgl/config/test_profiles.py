"""Board profiles: those that come along, those of the user, and what a mistake in one is told."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import pytest
import tomli_w

from edge_trgl.config.board import BoardConfig
from edge_trgl.config.sources import PROFILES, own_profiles, read_profile, read_toml, resolve
from edge_trgl.runtime.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Name: GB of memory as sold, GB/s.
BOARDS = {
    "jetson-nano": (4, 25.6),
    "jetson-tx2": (8, 59.7),
    "jetson-xavier-nx": (8, 59.7),
    "jetson-orin-nano-4gb": (4, 34.0),
    "jetson-orin-nano-8gb": (8, 68.0),
    "jetson-orin-nx-16gb": (16, 102.0),
    "jetson-agx-orin-32gb": (32, 204.8),
    "jetson-agx-orin-64gb": (64, 204.8),
    "raspberry-pi-4-2gb": (2, 12.8),
    "raspberry-pi-4-4gb": (4, 12.8),
    "raspberry-pi-4-8gb": (8, 12.8),
    "raspberry-pi-5-4gb": (4, 17.1),
    "raspberry-pi-5-8gb": (8, 17.1),
}
MEASURED = {"storage_random_iops", "images_per_s", "counters"}
NAMES = sorted(BOARDS)


def board(name: str) -> BoardConfig:
    return resolve(read_profile(name)).board


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own profiles, none so far."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "edge-trgl" / "profiles"
    folder.mkdir(parents=True)
    return folder


class TestBundled:
    def test_there_is_one_for_every_board(self):
        assert sorted(path.stem for path in PROFILES.glob("*.toml")) == sorted([*BOARDS, "generic"])

    @pytest.mark.parametrize("name", NAMES)
    def test_all_is_said_that_need_not_be_measured(self, name):
        found = board(name)
        assert {item.name for item in fields(found) if getattr(found, item.name) in (None, ())} == MEASURED

    @pytest.mark.parametrize("name", NAMES)
    def test_sizes_and_speeds_are_plausible(self, name):
        found, (sold_gb, bandwidth) = board(name), BOARDS[name]
        assert 0.83 * sold_gb * 1024 < found.usable_mb < sold_gb * 1024
        assert found.memory_gbs == bandwidth
        assert 10 <= found.storage_write_mbs <= found.storage_read_mbs <= 1000
        assert 10 <= found.endurance_tb <= 1000

    @pytest.mark.parametrize("name", NAMES)
    def test_kinds_of_storage_agree_with_their_numbers(self, name):
        found = board(name)
        kind = found.storage.split(",")[0]
        assert {"SD card": 20, "eMMC": 90, "NVMe drive": 200}[kind] <= found.storage_write_mbs
        assert found.storage_read_mbs <= {"SD card": 90, "eMMC": 300, "NVMe drive": 500}[kind]
        assert (found.endurance_tb >= 500) == (kind == "NVMe drive")

    @pytest.mark.parametrize("name", NAMES)
    def test_what_computes_goes_together(self, name):
        found, device = board(name), resolve(read_profile(name)).train.device
        assert found.dtypes[0] == "fp32"
        assert found.providers[-1] == "CPUExecutionProvider"
        assert ("CUDAExecutionProvider" in found.providers) == (found.gpu != "none") == name.startswith("jetson")
        assert ("bf16" in found.dtypes) == found.gpu.startswith("Ampere") == (device == "cuda")

    @pytest.mark.parametrize("name", NAMES)
    def test_nobody_has_measured_an_endurance(self, name):
        assert "endurance_tb" in board(name).estimates

    def test_names_are_told_apart(self):
        assert len({board(name).name for name in NAMES}) == len(NAMES)

    def test_the_generic_one_assumes_nothing(self):
        assert board("generic") == BoardConfig(
            name="Linux machine", dtypes=("fp32",), providers=("CPUExecutionProvider",)
        )

    @pytest.mark.parametrize("name", [*NAMES, "generic"])
    def test_nothing_else_is_in_the_files(self, name):
        assert set(read_toml(PROFILES / f"{name}.toml")) == {"board", "defaults"}

    @pytest.mark.parametrize("name", NAMES)
    def test_a_run_keeps_what_the_profile_said(self, name):
        config = resolve(read_profile(name))
        assert resolve(tomllib.loads(tomli_w.dumps(config.document()))) == config


class TestOwn:
    def test_they_are_found_by_name(self, own):
        (own / "shed.toml").write_text('[board]\nname = "in the shed"\n')
        assert board("shed").name == "in the shed"

    def test_they_come_before_those_that_came_along(self, own):
        (own / "jetson-nano.toml").write_text("[board]\nstorage_read_mbs = 12\n")
        assert read_profile("jetson-nano") == {"board": {"storage_read_mbs": 12}}

    def test_where_they_are(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        home = tmp_path / ".config" / "edge-trgl" / "profiles"
        assert own_profiles() == home
        for nothing in ("", "relative"):
            monkeypatch.setenv("XDG_CONFIG_HOME", nothing)
            assert own_profiles() == home
        monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
        assert own_profiles() == Path("/elsewhere/edge-trgl/profiles")


class TestSources:
    def test_files_and_flags_win_over_the_profile(self):
        flag = {"board": {"storage_write_mbs": 5}}
        config = resolve(read_profile("jetson-tx2"), flag)
        assert (config.board.storage_read_mbs, config.board.storage_write_mbs) == (108, 5)
        assert resolve(read_profile("jetson-orin-nx-16gb"), {"train": {"device": "cpu"}}).train.device == "cpu"

    def test_without_a_profile_nothing_is_known(self):
        assert resolve().board == BoardConfig()
        assert resolve().document()["board"] == {"dtypes": [], "counters": [], "providers": [], "estimates": []}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("orin-nano", "Did you mean jetson-orin-nano-4gb or jetson-orin-nano-8gb?"),
        ("jetson-nanno", "Did you mean jetson-nano"),
        ("raspberry-pi-5-8g", "Did you mean raspberry-pi-5-8gb?"),
        ("mine", "or mine-too"),
        ("xyz", "Known: generic, jetson-agx-orin-32gb"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(own, name, near):
    for known in ("mine-1", "mine-too"):
        (own / f"{known}.toml").touch()
    with pytest.raises(UsageError, match=f"there is no profile '{name}'") as caught:
        read_profile(name)
    assert near in caught.value.hint
    assert "mine-1" in caught.value.hint
    assert caught.value.hint.endswith("or give a .toml file.")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml"):
        read_profile(str(tmp_path / "none.toml"))


def test_defaults_that_are_no_sections(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text("defaults = 3\n")
    with pytest.raises(UsageError, match="defaults must hold sections"):
        read_profile(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("board = 3", "board must be a section, [board], not 3"),
        ("[board]\nusable_mb = 'much'", "board.usable_mb must be a finite number above 0, not 'much'"),
        ("[board]\nusable_mb = 0", "board.usable_mb must be a finite number above 0, not 0.0"),
        ("[board]\nstorage_read_mbs = nan", "board.storage_read_mbs must be a finite number above 0, not nan"),
        ("[board]\nendurance_tb = inf", "board.endurance_tb must be a finite number above 0, not inf"),
        ("[board]\nstorage_reed_mbs = 3", "did you mean board.storage_read_mbs?"),
        ("[board]\ndtypes = ['fp8']", "board.dtypes must be any of fp32, fp16, bf16, not ['fp8']"),
        ("[board]\nestimates = ['gpu']", "board.estimates names gpu, which the board does not state"),
        ("[board]\nestimates = ['problems']", "board.estimates names problems, which the board does not state"),
        ("[default.train]\nlr = 3\n[defaults.trian]\nlr = 3", "trian is not known; did you mean train?"),
    ],
)
def test_mistakes_are_told_by_the_dotted_name(tmp_path, text, message):
    path = tmp_path / "board.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve(read_profile(str(path)))
    assert message in caught.value.message
