"""Cut, export and fine-tune models of torchvision and timm."""
