"""The job `check`: compare the model that the job `export` wrote with the network, and publish or refuse it."""

from edge_trgl.export.check_models import check_models as run

__all__ = ["run"]
