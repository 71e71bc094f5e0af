"""Data sets: images and windows become record files on disk, and records become batches.

Preparing (`edge_trgl.data.prepare`) runs in a process of its own; what is named here is light enough for training.
"""

from edge_trgl.data.augment import Augment
from edge_trgl.data.dataset import DatasetInfo, SplitInfo, is_prepared, open_dataset, open_survey
from edge_trgl.data.reader import RecordReader
from edge_trgl.data.sampling import epoch_order, num_batches, spread, stored_order, windowed_order

__all__ = [
    "Augment",
    "DatasetInfo",
    "RecordReader",
    "SplitInfo",
    "epoch_order",
    "is_prepared",
    "num_batches",
    "open_dataset",
    "open_survey",
    "spread",
    "stored_order",
    "windowed_order",
]
