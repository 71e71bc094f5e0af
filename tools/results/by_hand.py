"""Figures that no file has: measured by hand, once, with commands that stand beside them."""

from __future__ import annotations

from collections.abc import Iterator

TEXT = """## Measured by hand

No file has these: each comes from the commands beside it, in one sitting, on the machine named at the top unless
it says otherwise, with the versions of 2026-11-25 to 2026-11-28.

* **The demo**: `edge-trgl train --budget-mb 340 --export` (K-M 10-1, width 32, on the sample; what `make demo`
  does) was planned for 307 MiB and peaked at 304: 1 min 36 s of training at 464 images/s.
* **The heap**: where the tensors of most modules are smaller than 4 MiB, and four of the largest are at most 2 %
  of the budget, freed memory stays on the heap. On an Intel Xeon, two threads train K-M 10-1 of width 64, batch
  64, at 210 images/s instead of 151 (peaks 361 and 366 MiB), with one module in memory at 173 instead of 136 (425
  and 436), and ResNet-110 at 28×28, 54 modules, batch 32, at 69 instead of 54 (331 and 345): `edge-trgl train
  --budget-mb 4000` with both versions, one run each, to the same weights.
* **Beside others**: two threads train K-M 10-1 of width 32 at 55 images/s beside a process that takes one of the
  two cores, and at 26 where they spin as long as OpenMP's own setting says; alone, width 64 trains at 100 both
  ways (`GOMP_SPINCOUNT`, which is left alone where it, or `OMP_WAIT_POLICY`, is set).
* **Folding batch norms** into convolutions before the export gains nothing: an image took the same 11.0 ms in
  onnxruntime (17 convolutions of width 64 at 32×32).

### Leaving early

K-M 10-1 of width 32 after eight epochs of all Fashion-MNIST and ten of all CIFAR-10 (`--batch-size 128 --set
train.lr=0.05`), exported with `--depth last --exits auto:0.2`, a stage a module; accuracy on the 10,000 test
images, and the mean FLOPs of one as a share of those of `model.onnx`:

| | last exit | left early | FLOPs | first exit |
|---|--:|--:|--:|--:|
| Fashion-MNIST | 90.82 % | 90.84 % | 23 % | 90.54 % |
| CIFAR-10 | 78.50 % | 78.44 % | 30 % | 77.08 % |

All stages together take 1.40 times the FLOPs of `model.onnx`, for each has a classifier.

### Smaller files

The same two nets, exported with `--depth 10 --int8 --fp16`; accuracy on the 10,000 test images as `predict` opens
them, agreement with `model.onnx` there, one thread of a Xeon with VNNI and AMX:

| | file | MiB | accuracy | agreement | p50, ms |
|---|---|--:|--:|--:|--:|
| Fashion-MNIST | `model.onnx` | 2.00 | 90.82 % | | 0.63 |
| | `model.int8.onnx` (minmax) | 0.55 | 90.79 % | 99.50 % | 0.41 |
| | `model.fp16.onnx` | 1.01 | 90.85 % | 99.97 % | 0.62 |
| CIFAR-10 | `model.onnx` | 2.00 | 78.50 % | | 0.77 |
| | `model.int8.onnx` (minmax) | 0.55 | 78.41 % | 98.72 % | 0.47 |
| | `model.fp16.onnx` | 1.01 | 78.47 % | 99.95 % | 0.76 |

int8 was to be twice as fast; it is 1.5 to 1.6 times. onnxruntime's profile of the first net says why: the
convolutions take 241 µs instead of 571, but 0.14 ms go to what stays in float32 between them (8 batch norms and 10
sums, and 43 nodes that quantise and transpose for these); in float32 it has all of that inside its convolutions.
All six files give the same bits in onnxruntime 1.30 as in 1.32.

Peaks of the processes in MiB, the parent counted: export 296, int8 120, fp16 114. With a layer of 128 MiB (a model
of 141): export 416, int8 388, fp16 296; measuring the latencies, with three optimised sessions at once, 533."""


def sections() -> Iterator[str]:
    """The part of the page."""
    yield TEXT
