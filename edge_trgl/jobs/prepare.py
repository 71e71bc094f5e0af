"""The job `prepare`: decode the images into records in the run's folder, or only survey large ones. No torch."""

from __future__ import annotations

from edge_trgl.data import is_prepared
from edge_trgl.data.prepare import prepare
from edge_trgl.jobs.requests import PrepareRequest, PrepareResult
from edge_trgl.run.folder import Run


def run(run: Run, request: PrepareRequest) -> PrepareResult:
    """Prepare the run's data; see `prepare`."""
    config = run.config()
    info = prepare(
        config.data.source,
        run.data,
        seed=config.train.seed,
        validation=config.data.validation,
        image_size=config.data.image_size,
        resize=config.data.resize,
        strict=config.data.strict,
        limit=config.data.limit,
        choose_on=config.data.choose_on,
        survey_large=request.survey_large,
    )
    return PrepareResult(decoded=is_prepared(run.data), summary=info.summary)
