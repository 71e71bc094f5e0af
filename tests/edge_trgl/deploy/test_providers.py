"""The fastest provider that works is taken, and what was in the way of a better one is told."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from edge_trgl.deploy import Predictor, network
from edge_trgl.deploy.providers import ABSENT, NAMES, Provider, ProviderFailedError, take
from edge_trgl.runtime.errors import InputError, UsageError

TENSORRT, CUDA, CPU = NAMES.values()


def attempt(*broken):
    def attempt(name):
        if name in broken:
            raise ProviderFailedError(f"no {name} today")
        return f"opened with {name}"

    return attempt


@pytest.mark.parametrize(
    ("available", "broken", "taken", "passed_over"),
    [
        ([TENSORRT, CUDA, CPU], [], "tensorrt", {}),
        ([CPU, CUDA, TENSORRT], [], "tensorrt", {}),
        ([CUDA, CPU], [], "cuda", {"tensorrt": ABSENT}),
        ([CPU], [], "cpu", {"tensorrt": ABSENT, "cuda": ABSENT}),
        ([TENSORRT, CUDA, CPU], ["tensorrt"], "cuda", {"tensorrt": "present but failed with: no tensorrt today"}),
        (
            [CUDA, CPU],
            ["cuda"],
            "cpu",
            {"tensorrt": ABSENT, "cuda": "present but failed with: no cuda today"},
        ),
    ],
)
def test_the_order(available, broken, taken, passed_over):
    opened, provider = take("auto", available, attempt(*broken))
    assert opened == f"opened with {taken}"
    assert provider == Provider(name=taken, passed_over=passed_over)


@pytest.mark.parametrize("wanted", NAMES)
def test_one_that_is_named_is_taken_or_refused(wanted):
    assert take(wanted, NAMES.values(), attempt())[1] == Provider(name=wanted, passed_over={})
    with pytest.raises(UsageError, match=f"{wanted}: {ABSENT}"):
        take(wanted, [], attempt())
    with pytest.raises(UsageError, match=f"{wanted}: present but failed with: no {wanted} today"):
        take(wanted, NAMES.values(), attempt(wanted))


def test_one_that_nobody_knows():
    with pytest.raises(UsageError, match="no provider vulkan"):
        take("vulkan", NAMES.values(), attempt())


def test_it_is_told_in_one_line():
    provider = Provider(name="cpu", passed_over={"tensorrt": ABSENT, "cuda": "present but failed with: x"})
    assert str(provider) == f"cpu (tensorrt: {ABSENT}; cuda: present but failed with: x)"
    assert str(Provider(name="cuda", passed_over={})) == "cuda"


@pytest.fixture
def pretended(monkeypatch):
    """An onnxruntime with all providers, of which TensorRT fails aloud and CUDA in silence; what was tried."""

    def session(path, options, *, providers, enable_fallback):
        assert not enable_fallback
        tried.append(providers)
        if providers[0] == TENSORRT:
            told = "/src/state.cc:7 void f(const A&, B) no engine\nfor this board"
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(told)
        return onnxruntime.InferenceSession(path, options, providers=[CPU])

    tried = []
    runtime = SimpleNamespace(**vars(onnxruntime))
    runtime.get_available_providers = lambda: list(NAMES.values())
    runtime.InferenceSession = session
    monkeypatch.setattr(network, "load_runtime", lambda: runtime)
    return tried


def test_providers_that_fail_aloud_and_in_silence(tmp_path, tiny, pixels, pretended):
    predictor = Predictor(tiny.classifier(tmp_path / "model.onnx"))
    assert predictor.provider.name == "cpu"
    assert predictor.provider.passed_over["tensorrt"] == "present but failed with: no engine"
    # This build has no such library, and the loader says so.
    assert "libonnxruntime_providers_cuda.so" in predictor.provider.passed_over["cuda"]
    assert predictor.predict(pixels(1)).labels.shape == (1,)
    # What one cannot compute, the next one does.
    assert pretended == [[TENSORRT, CUDA, CPU], [CUDA, CPU], [CPU]]


@pytest.mark.usefixtures("pretended")
def test_a_damaged_file_is_no_fault_of_a_provider(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("text")
    with pytest.raises(InputError, match="cannot be loaded"):
        Predictor(path)


def test_without_onnxruntime(tmp_path, tiny, monkeypatch):
    path = tiny.classifier(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="needs onnxruntime") as raised:
        Predictor(path)
    assert "pip install onnxruntime" in raised.value.hint
    assert raised.value.exit_code == 2
