"""The job `prepare`: decode the images into records in the run's folder, or only survey large ones. No torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_trgl.data import is_prepared
from edge_trgl.data.prepare import prepare
from edge_trgl.data.prepared_cache import Prepared, PreparedCache
from edge_trgl.jobs.requests import PrepareRequest, PrepareResult
from edge_trgl.run.folder import Run


def run(run: Run, request: PrepareRequest) -> PrepareResult:
    """Prepare the run's data, or take those that were prepared before; see `prepare` and `PreparedCache`."""
    config = run.config()
    decode = partial(
        prepare,
        config.data.source,
        run.data,
        seed=config.train.seed,
        validation=config.data.validation,
        image_size=config.data.image_size,
        resize=config.data.resize,
        strict=config.data.strict,
        limit=config.data.limit,
        choose_on=config.data.choose_on,
        labels=config.loss.reads_labels,
        survey_large=request.survey_large,
    )
    if request.cache is None:
        prepared = Prepared(info=decode())
    else:
        cache = PreparedCache(
            Path(request.cache), config.data, seed=config.train.seed, labels=config.loss.reads_labels
        )
        prepared = cache.prepare(run.data, decode, anew=request.anew)
    return PrepareResult(
        decoded=is_prepared(run.data),
        summary=prepared.info.summary,
        fingerprint=prepared.info.fingerprint,
        reused=prepared.reused,
        damage=prepared.damage,
    )
