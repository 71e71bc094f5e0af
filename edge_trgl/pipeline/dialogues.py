"""The dialogues about a run, by name, and the decision of one turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_trgl.pipeline.dialogue import Dialogue
from edge_trgl.pipeline.exporting import Export
from edge_trgl.pipeline.planning import Plan
from edge_trgl.pipeline.scoring import Evaluate, Report
from edge_trgl.pipeline.training import Train
from edge_trgl.pipeline.turns import Answer, Turn
from edge_trgl.run.folder import Run

DIALOGUES: dict[str, type[Dialogue[Any]]] = {
    kind.__name__: kind for kind in (Train, Plan, Evaluate, Report, Export)
}


def decide(turn: Turn) -> Answer:
    """Take the decision that a dialogue stands at."""
    run = Run(Path(turn.folder))
    facts = run.facts()
    try:
        return DIALOGUES[turn.dialogue](run, facts, turn).answer()
    finally:
        facts.close()
