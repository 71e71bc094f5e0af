"""Heads: auxiliary classifiers that predict the label from the output of a module; the decoder in their place."""

from edge_trgl.networks.heads.build import HEADS as HEADS
from edge_trgl.networks.heads.build import build_head as build_head
from edge_trgl.networks.heads.conv import ConvHead as ConvHead
from edge_trgl.networks.heads.decoder import DECODER as DECODER
from edge_trgl.networks.heads.decoder import Decoder as Decoder
from edge_trgl.networks.heads.deep import DeepHead as DeepHead
from edge_trgl.networks.heads.layers import PoolRule as PoolRule
from edge_trgl.networks.heads.layers import to_two_by_two as to_two_by_two
from edge_trgl.networks.heads.linear import LinearHead as LinearHead
from edge_trgl.networks.heads.lite import LiteHead as LiteHead
from edge_trgl.networks.heads.mlp import MlpHead as MlpHead
from edge_trgl.networks.heads.pooled import PooledHead as PooledHead
from edge_trgl.networks.heads.tokens import TokensHead as TokensHead
