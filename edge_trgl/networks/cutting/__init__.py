"""Any model cut into a chain of blocks. `torchvision` and `timm` are loaded where one of theirs is asked for."""

from edge_trgl.networks.cutting.cut import cut as cut
from edge_trgl.networks.cutting.first_weights import FirstWeights as FirstWeights
from edge_trgl.networks.cutting.first_weights import fill as fill
from edge_trgl.networks.cutting.first_weights import tensors_of as tensors_of
from edge_trgl.networks.cutting.libraries import model_factory as model_factory
from edge_trgl.networks.cutting.net import Net as Net
from edge_trgl.networks.cutting.without_weights import Factory as Factory
from edge_trgl.networks.cutting.without_weights import hollow as hollow
