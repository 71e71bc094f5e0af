"""Accuracy: the bundled sample, and the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.results.markdown import NONE, percent, table
from tools.results.source import document, origin

SAMPLE_TESTS = {"sample": "the sample's 1,000", "full": "all 10,000 of Fashion-MNIST"}
OWN_HEADS, UNFLIPPED = "table14-own-heads", "table14-own-heads-data.flip=false"
SCALED_DOWN = {
    "table13-model.width=16": "reproduce table13 --set model.width=16 --seeds 2",
    "table10-data.limit=1000-model.width=8": "reproduce table10 --set data.limit=1000 model.width=8 --seeds 1",
}


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    yield f"""## Accuracy on the bundled sample

K-M 10-1 of width 32, the default recipe of that day (10 epochs, batch 32, a learning rate falling from 0.02 along
a cosine, τ = 0.5, and images mirrored, which is `--flip` since), 4,500 training images, three seeds, one thread.
Test accuracy in %, mean ± 95 % interval:

{_sample()}

{origin("sample", "tools.reproduce sample")}

The end-to-end net is the same trunk with the last classifier, trained with the same recipe, not tuned for it. Its
row is from a version before its first weights were drawn block by block."""

    yield f"""## The paper's tables

### Table 14: MNIST, K-M 20-1 of width 32, parallel, a classifier for each module

`--recipe table14-own-heads`: the paper's “same classifier” read as classifiers of one architecture, and the
encoder trained with the first module. Test accuracy in %, mean ± 95 % interval. “Over VanGL” compares runs on the
same images and from the same first weights, seed by seed. TRGL has the recipe's τ of 0.002, if the row names no
other.

{_paper(OWN_HEADS, "train size")}

{origin(OWN_HEADS, f"tools.reproduce {OWN_HEADS} --cases 150 300 --rows VanGL TRGL end-to-end --seeds 5")}

(`--cases 600 --seeds 3` for 600 images; other τ with `--rows TRGL@0.001` and so on.)

**So read, there is no gain of the transport term over VanGL.** VanGL is better than the paper's on all three
sizes; TRGL and end-to-end training are below the paper's. From the first block to the last, VanGL loses 2.3 points
at 150 images, which TRGL does not keep either, and nothing at 300 and 600 (`per_depth` in the file), where there
is nothing to keep. The authors' scripts are otherwise: one classifier for all modules, its running statistics
included, behind a fixed encoder that was trained without labels (`--recipe table14`; its table is still to be
run). Trials of that outside this program had the gain, most of it from the shared statistics. What was looked at
here:

* **τ**, which the paper does not record. At 150 images, seed 0, the last block scores, on validation images, 84.4
  % with τ = 0.5, 83.4 with 0.05, 85.1 with 0.005, 86.6 with 0.002, 86.8 with 0.001, and 9.9 with 0.0005, which
  diverges from the second module on (VanGL: 85.1). Over five seeds 0.002 scores 84.6 there, 0.001 84.7 and VanGL
  84.1. The recipe has 0.002, further from where training diverges. At 300 images it costs 1.5 points.
* **The images.** Each seed draws its own, and its own first weights: at 150 images VanGL comes to between 81.6 and
  86.0 %. Intervals as narrow as the paper's, over 20 or 50 runs, may come from one draw of images for all runs; it
  does not say.
* **Mirroring.** The recipe mirrors digits, as the authors' scripts do, and that costs more than anything else here
  (next table). The paper's VanGL and TRGL are nearer to the mirrored figures, its end-to-end (87.8) to the other
  one: mirroring alone explains neither.
* **The encoder.** With the encoder of the end-to-end net of seed 4 (83.8 %), fixed (`--model km-20-1-encoder
  --pretrained FILE --freeze 1`), VanGL falls from 83.7 to 78.1 %, about as far below end-to-end as in the paper;
  TRGL comes to 76.4 with τ = 0.5 and 71.4 with 0.001 (one run each).
* **The depth.** Chosen on validation images (the default), it scores 2.5 points more than the last block in both
  greedy rows at 150 images, where the best one is early; at 300 and 600 it makes less of a difference (−0.0 to
  +1.1).

### Table 14 without mirrored digits

{_paper(UNFLIPPED, "train size")}

{origin(UNFLIPPED, f"tools.reproduce {OWN_HEADS} --cases 150 --set data.flip=false")}

### Figure 2: accuracy after each module

![Accuracy after each module](figure2.png)

*`python -m tools.reproduce figure2` · bands are 95 % intervals, mostly of what images were drawn · table 10 on
1,000 of the 50,000 images that its title has*

### Tables 10 and 13 scaled down: CIFAR-10

1,000 images and a small part of the paper's width of 256, since there was no GPU: nothing can be expected to come
to the paper's figures (those of table 10 are for 50,000 images). TRGL has τ = 0.5, if the row names no other."""

    for name, command in SCALED_DOWN.items():
        found = document(name)
        yield f"{found['title']}, {' '.join(found['changes'])}:\n\n{_paper(name, 'train size')}"
        yield origin(name, f"tools.{command}")


def _sample() -> str:
    items = {(item["test"], item["row"]): item for item in document("sample")["rows"]}
    rows = dict.fromkeys(row for _, row in items)
    head = ["", *(f"{title}: {depth} depth" for title in SAMPLE_TESTS.values() for depth in ("chosen", "last"))]
    return table(
        head,
        (
            [row, *(percent(items[test, row][depth]) for test in SAMPLE_TESTS for depth in ("chosen", "last"))]
            for row in rows
        ),
    )


def _paper(name: str, case_title: str) -> str:
    found = document(name)
    head = (case_title, "row", "paper", "ours, last block", "over VanGL", "ours, chosen depth", "seeds")
    return table(head, (_cells(item) for item in found["rows"]), left=2)


def _cells(item: Mapping[str, Any]) -> Sequence[str]:
    row, _, tau = item["row"].partition("@")
    return (
        item["case"],
        f"{row}, τ = {tau}" if tau else row,
        percent(item["paper"]),
        percent(item["last"]),
        NONE if item["over_vangl"] is None else percent(item["over_vangl"], signed=True),
        percent(item["chosen"]),
        str(item["seeds"]),
    )
