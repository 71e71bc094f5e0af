"""Local losses of a module, beside the transport cost: cross-entropy, PredSim, InfoPro, or one's own."""

from edge_trgl.method.losses.contrast import Contrast
from edge_trgl.method.losses.infopro import InfoPro
from edge_trgl.method.losses.mix import Auxiliary, CrossEntropy, LocalLoss, Mix, Place, damped
from edge_trgl.method.losses.predsim import PredSim
from edge_trgl.method.losses.reconstruction import Reconstruction
from edge_trgl.method.losses.similarity import Similarity

__all__ = [
    "Auxiliary",
    "Contrast",
    "CrossEntropy",
    "InfoPro",
    "LocalLoss",
    "Mix",
    "Place",
    "PredSim",
    "Reconstruction",
    "Similarity",
    "damped",
]
