"""Any model, cut into a chain of blocks; torchvision and timm are imported only for a model of theirs."""

from edge_trgl.networks.cutting.cut import cut as cut
from edge_trgl.networks.cutting.first_weights import FirstWeights as FirstWeights
from edge_trgl.networks.cutting.first_weights import copy_by_name as copy_by_name
from edge_trgl.networks.cutting.first_weights import tensors_of as tensors_of
from edge_trgl.networks.cutting.libraries import model_factory as model_factory
from edge_trgl.networks.cutting.net import Net as Net
from edge_trgl.networks.cutting.without_weights import Factory as Factory
from edge_trgl.networks.cutting.without_weights import parameters_on_meta as parameters_on_meta
