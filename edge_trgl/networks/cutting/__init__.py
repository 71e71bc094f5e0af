"""Any model, cut into a chain of blocks; torchvision and timm are imported only for a model of theirs.

Nothing is imported here: training a network of the catalogue loads none of it.
"""
