"""Auxiliary classifiers: small nets that predict the label from a module's output."""

from edge_trgl.heads.build import HEADS as HEADS
from edge_trgl.heads.build import build_head as build_head
from edge_trgl.heads.conv import ConvHead as ConvHead
from edge_trgl.heads.deep import DeepHead as DeepHead
from edge_trgl.heads.layers import PoolRule as PoolRule
from edge_trgl.heads.layers import to_two_by_two as to_two_by_two
from edge_trgl.heads.linear import LinearHead as LinearHead
from edge_trgl.heads.pooled import PooledHead as PooledHead
from edge_trgl.heads.tokens import TokensHead as TokensHead
