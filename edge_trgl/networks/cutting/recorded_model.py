"""A model with the recording of its forward pass, and ranges of its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edge_trgl.networks.cutting.cut_points import Liveness, liveness_of
from edge_trgl.networks.cutting.expressions import references
from edge_trgl.networks.cutting.recorder import record
from edge_trgl.networks.cutting.recording import Call, Recording
from edge_trgl.networks.cutting.without_weights import Factory, build_lightly


@dataclass(frozen=True, kw_only=True)
class CallRange:
    """The calls from `start` to before `stop`, which compute value `output` from value `entering`.

    `channels_last`: whether the calls have channels as the last axis of `entering`, and of `output`.
    """

    start: int
    stop: int
    entering: int
    output: int
    channels_last: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, kw_only=True)
class RecordedModel:
    """A model as it is cut.

    Args:
        net: its structure, on the device meta.
        buffers: the values of its buffers, by name.
        recording: its forward pass.
        liveness: which values of the pass are alive when.
    """

    net: nn.Module
    buffers: dict[str, Tensor]
    recording: Recording
    liveness: Liveness

    @classmethod
    def of(cls, factory: Factory, input_shape: Sequence[int], scratch: Path | None = None) -> RecordedModel:
        """Record the model that `factory` makes on samples of `input_shape`; `scratch` as in `build_lightly`.

        Raises:
            InputError: its forward pass cannot be followed.
        """
        net = build_lightly(factory, scratch)
        buffers = {name: buffer.detach().clone() for name, buffer in net.named_buffers()}
        recording = record(net.to("meta"), input_shape)
        return cls(net=net, buffers=buffers, recording=recording, liveness=liveness_of(recording))

    def tensor(self, name: str) -> Tensor:
        """Return a parameter (without values), buffer or constant."""
        if name in self.buffers:
            return self.buffers[name]
        if name in self.recording.constants:
            return self.recording.constants[name]
        return self.net.get_parameter(name)

    def layer_of(self, call: Call) -> nn.Module | None:
        """Return the layer that is called; None if a function is."""
        return None if call.layer_name is None else self.net.get_submodule(call.layer_name)

    def submodule(self, name: str) -> nn.Module | None:
        """Return the module of this name, if there is one."""
        try:
            return self.net.get_submodule(name)
        except AttributeError:
            return None

    def call_numbers(self, call_range: CallRange) -> list[int]:
        """Return the numbers of the calls that a range needs.

        What is computed from weights alone belongs to every range that reads it, wherever the model computes it.
        """
        liveness, calls = self.liveness, self.recording.calls
        touched = [liveness.reads[number] | liveness.makes[number] for number in range(len(calls))]
        chosen = {
            number for number in range(call_range.start, call_range.stop) if touched[number] & liveness.from_input
        }
        while True:
            read = {value for number in chosen for value in liveness.reads[number]}
            more = {
                number
                for number, call in enumerate(calls)
                if not touched[number] & liveness.from_input
                and (liveness.makes[number] | set(call.changes)) & read
            }
            if more <= chosen:
                return sorted(chosen)
            chosen |= more

    def names_in(self, call_range: CallRange) -> set[str]:
        """Return the names of the layers and weights that a range uses."""
        calls = (self.recording.calls[number] for number in self.call_numbers(call_range))
        return {name for call in calls for name in names_in_call(call)}


def names_in_call(call: Call) -> set[str]:
    """Return the names of the weights among the arguments, and of the layer that is called."""
    names = {*references(call.arguments, "weight"), *references(call.options, "weight")}
    return names if call.layer_name is None else names | {call.layer_name}
