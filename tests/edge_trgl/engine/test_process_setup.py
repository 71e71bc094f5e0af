"""How a process that computes is held to its budget, and what it says of where it computes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from edge_trgl.engine import open_run, process_setup
from edge_trgl.jobs import __main__ as jobs
from edge_trgl.runtime.memory import allocator, counters
from edge_trgl.runtime.memory.limits import Limits


def test_what_warming_up_loads_leaves_a_gpus_allocator_less(monkeypatch):
    """The limit stands before the first step, whose workspace it limits, and is lower after it."""
    done, rss = [], iter((400.0, 900.0))
    monkeypatch.setattr(counters, "usage", lambda: SimpleNamespace(rss=next(rss)))
    monkeypatch.setattr(process_setup, "warm_up", lambda device: done.append(device))
    monkeypatch.setattr(allocator, "keep_tensors_on_heap", lambda: None)
    process_setup.begin(SimpleNamespace(name="cuda", set_limit=done.append), Limits(budget_mb=2000.0), 0.0)
    assert done == [1600.0, "cuda", 1100.0]


def test_what_was_measured_on_another_gpu_does_not_hold_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a small one")
    assert process_setup.environment("cuda")["GPU"] == "a small one"
    assert "GPU" not in process_setup.environment("cpu")


@pytest.mark.parametrize(("there", "mb"), [(True, 322.0), (False, 0.0)])
def test_the_peak_of_a_job_has_the_devices_bytes_where_it_opened_one(monkeypatch, there, mb):
    name = "edge_trgl.runtime.memory.device"
    if there:
        monkeypatch.setitem(jobs.sys.modules, name, SimpleNamespace(all_opened_mb=lambda: 322.0))
    else:
        monkeypatch.delitem(jobs.sys.modules, name)
    assert jobs._device_mb() == mb


def test_a_run_is_opened_elsewhere_without_its_own_device(plan_run, monkeypatch):
    """An export computes on the CPU: a CUDA context would take hundreds of MiB for nothing."""
    run = plan_run("run")
    monkeypatch.setattr(open_run, "open_device", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(type(run), "config", _on_cuda(type(run).config))
    assert open_run.open_run(run).device.name == "cuda"
    opened = open_run.open_run(run, "cpu")
    assert (opened.device.name, opened.factory.device) == ("cpu", "cpu")
    opened.feed("train").close()  # its mean is on the device


def _on_cuda(config):
    def changed(run):
        found = config(run)
        return replace(found, train=replace(found.train, device="cuda"))

    return changed
