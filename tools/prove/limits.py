"""Sections `minimum` and `depth` of the proof: how tight the smallest budget is, and that depth is free."""

from __future__ import annotations

import math

from edge_trgl.runtime.errors import DoesNotFitError
from tools.common.book import Item
from tools.common.processes import CommandError
from tools.prove.cases import DEPTH_BUDGET_MB, DEPTH_FLAGS, NETS, REGIMES, depth_net
from tools.prove.proof import Proof, discard, figures, measured_mb, say

STEP_MB = 1.0
"""How far below the smallest budget `plan` must refuse."""

GENEROSITY = 1.08
"""The smallest budget over the true one, at most."""


def minimum(proof: Proof, net_name: str, regime: str) -> Item:
    """The smallest budget less a step is refused; less its allowed generosity, and forced, it is passed."""
    key = f"{net_name}, {regime}"
    found = proof.book.find("minimum", key)
    if found is not None:
        return found
    kept = proof.row(net_name, regime, "minimum")
    say(f"{key}: below the smallest budget")
    item: Item = {"net": net_name, "regime": regime}
    try:
        item |= {"error": "its row failed"} if "error" in kept else _below(proof, net_name, regime, kept)
    except CommandError as error:
        item["error"] = str(error)
    return proof.book.put("minimum", key, item)


def _below(proof: Proof, net_name: str, regime: str, kept: Item) -> Item:
    flags = proof.flags(NETS[net_name], REGIMES[regime])
    minimum_mb = proof.minimum_mb(net_name, regime)
    refused = proof.plan(minimum_mb - STEP_MB, flags)
    forced_mb = math.floor(minimum_mb / GENEROSITY)
    folder = proof.folder()
    forced = proof.train(flags, folder, forced_mb, "--force", limit_mb=math.inf)
    discard(folder)
    return {
        "minimum_mb": minimum_mb,
        "measured_mb": measured_mb(kept),
        "refused": refused.code == DoesNotFitError.exit_code,
        "forced_mb": forced_mb,
        "forced_peak_mb": forced.peak_mb,
        "forced_code": forced.code,
    }


def depth(proof: Proof, num_modules: int) -> Item:
    """The peak of a K-M net with one of `num_modules` modules in memory."""
    key = str(num_modules)
    found = proof.book.find("depth", key)
    if found is not None:
        return found
    say(f"K-M with {num_modules} modules, one in memory")
    folder = proof.folder()
    done = proof.train(proof.flags(depth_net(num_modules), DEPTH_FLAGS), folder, DEPTH_BUDGET_MB)
    discard(folder)
    return proof.book.put("depth", key, {"modules": num_modules, **figures(done, DEPTH_BUDGET_MB)})
