"""Networks as chains, one small file for each family."""

from edge_trgl.networks.zoo.km_resnet import km_resnet as km_resnet
from edge_trgl.networks.zoo.resnet import resnet as resnet
from edge_trgl.networks.zoo.resnet110 import resnet110 as resnet110
from edge_trgl.networks.zoo.swin import swin_tiny as swin_tiny
from edge_trgl.networks.zoo.vgg import vgg19 as vgg19
