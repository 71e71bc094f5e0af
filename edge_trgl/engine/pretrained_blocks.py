"""Writes the blocks of a trained autoencoder to the file that `--pretrained` takes; the decoder is left out."""

from __future__ import annotations

from edge_trgl.engine.normalisation import as_metadata
from edge_trgl.engine.open_run import OpenRun
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.runtime.storage import safetensors_file
from edge_trgl.runtime.storage.module_store import ModuleStore


def write_blocks(opened: OpenRun, modules: ModuleStore[LocalModule]) -> None:
    """Write the blocks into the run's folder, with names `blocks.N.NAME`, N counted from 0.

    Raises:
        StorageError: the disk is full or fails.
    """
    named = modules.open(0).final_tensors().items()
    tensors = {f"blocks.{name.removeprefix('trunk.')}": t for name, t in named if name.startswith("trunk.")}
    safetensors_file.write(opened.run.blocks_file, tensors, durable=True, metadata=as_metadata(opened.info))
