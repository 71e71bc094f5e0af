"""The tuned constants of the planner: the errors of its estimates, and a rough speed.

`[x86]`: measured on two x86-64 cores with torch's CPU build (oneDNN). `[-]`: measured, but the machine was not
recorded. `[chosen]`: not measured. No commands were recorded.
"""

from __future__ import annotations

OPTIMISM = 0.1
"""Share of a work by which its estimate may be too high: plans within it are decided by measuring. [-]"""

OPTIMISM_FIXED = 0.04
"""Share by which the estimate of a process before its first module may be too high. [-]"""

SHORTFALL = 0.02
"""Share by which an estimated peak was too low at most. [-]"""

COMPUTE_BYTES_PER_S = 2e9
"""Bytes of a step's tensors over its seconds, and so over three times what recomputing its forward pass adds.

Only puts plans in order. [x86]"""

STEP_DOWN = 0.1
"""Share of what a plan can give back that a step down the ladder gives back, where it can. [chosen]"""

MORE_COPIES = 4
"""How many times the copies of cached boundaries the plan shows as an alternative. [chosen]"""
