"""Any model cut into a chain of blocks. `torchvision` and `timm` are loaded where one of theirs is asked for."""

from edge_trgl.cutting.cut import cut as cut
from edge_trgl.cutting.filling import Nursery as Nursery
from edge_trgl.cutting.filling import fill as fill
from edge_trgl.cutting.filling import tensors_of as tensors_of
from edge_trgl.cutting.hollow import Factory as Factory
from edge_trgl.cutting.hollow import hollow as hollow
from edge_trgl.cutting.net import Net as Net
from edge_trgl.cutting.origins import model_factory as model_factory
