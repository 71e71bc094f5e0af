"""Draw the bundled sample from the full Fashion-MNIST set.

    python -m tools.make_sample [--source DIR] [--out DIR] [--quick] [--json]

DIR holds the four idx files of the full set, raw or gzipped. 500 training and 100 test images of each class
are drawn with a fixed seed and kept in the order of the full set, so the same set gives the same images
everywhere, and the same files byte for byte where zlib compresses alike. --quick draws a hundredth of that,
into a temporary folder unless --out is given.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources import idx, sample
from tools.common.options import command_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_trgl.data.sources import Split

SEED = 20170825
PER_CLASS = {"train": 500, "test": 100}
PREFIXES = {"train": "train", "test": "t10k"}


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        default = Path(scratch) if options.quick else sample.FOLDER
        checksums = make(options.source, options.out or default, divisor=100 if options.quick else 1)
    if options.json:
        print(json.dumps(checksums, indent=1))
    else:
        print("\n".join(f"{checksum}  {name}" for name, checksum in checksums.items()))


def make(source: Path, out: Path, *, divisor: int = 1) -> dict[str, str]:
    """Write the four files into `out`.

    Args:
        source: the folder of the full set.
        out: an existing folder.
        divisor: draw only this part of the sample's images.

    Returns:
        The sha256 (hex) of each file, by name.
    """
    checksums = {}
    for name, split in idx.load(source).splits.items():
        samples = draw(split.labels, PER_CLASS[name] // divisor)
        contents = {
            f"{PREFIXES[name]}-images-idx3-ubyte.gz": _images(split, samples),
            f"{PREFIXES[name]}-labels-idx1-ubyte.gz": _idx(split.labels[samples].astype(np.uint8)),
        }
        for file_name, content in contents.items():
            packed = _gzip(content)
            (out / file_name).write_bytes(packed)
            checksums[file_name] = hashlib.sha256(packed).hexdigest()
    return checksums


def draw(labels: NDArray[np.int64], per_class: int) -> NDArray[np.int64]:
    """Ascending positions of `per_class` images of each class."""
    # numpy promises that this older generator's numbers stay the same in every version to come.
    generator = np.random.RandomState(SEED)
    classes = range(int(labels.max()) + 1)
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:per_class] for label in classes]
    return np.sort(np.concatenate(chosen))


def _images(split: Split, samples: NDArray[np.int64]) -> bytes:
    return _idx(np.concatenate(list(split.batches(samples)))[..., 0])


def _idx(values: NDArray[np.uint8]) -> bytes:
    """The idx format: magic number with the rank, big-endian sizes, bytes."""
    header = np.array([0x0800 + values.ndim, *values.shape], ">u4")
    return header.tobytes() + values.tobytes()


def _gzip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(content)
    return packed.getvalue()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("EDGE_TRGL_DATA", "~/.cache/edge-trgl-data")).expanduser()
    parser = command_line("make_sample", __doc__)
    parser.add_argument("--source", type=Path, default=cache / "fashion-mnist", help="folder of the full set")
    parser.add_argument("--out", type=Path, help="default: edge_trgl/data/sample")
    parser.add_argument("--quick", action="store_true", help="draw a hundredth, to try the tool")
    parser.add_argument("--json", action="store_true", help="print the checksums as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
