"""Run exported files with onnxruntime, numpy and, for image files, Pillow; torch is never loaded."""

from edge_trgl.deploy.cascade import Cascade
from edge_trgl.deploy.manifest import Manifest, Stage
from edge_trgl.deploy.prediction import EarlyPrediction, Prediction
from edge_trgl.deploy.predictor import Predictor
from edge_trgl.deploy.providers import Provider

__all__ = ["Cascade", "EarlyPrediction", "Manifest", "Prediction", "Predictor", "Provider", "Stage"]
