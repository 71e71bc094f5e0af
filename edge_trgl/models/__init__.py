"""Networks as chains, one small file a family."""

from edge_trgl.models.km_resnet import km_resnet as km_resnet
from edge_trgl.models.resnet import resnet as resnet
from edge_trgl.models.resnet110 import resnet110 as resnet110
from edge_trgl.models.swin import swin_tiny as swin_tiny
from edge_trgl.models.vgg import vgg19 as vgg19
