"""Reconstruction of the image from a module's output, as InfoPro asks for (Wang et al., 2021, section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.losses.mix import Auxiliary, Place

CHANNELS = 12
"""Channels between the decoder's two convolutions, as published."""


class Reconstruction(Auxiliary):
    """Mean binary cross-entropy per pixel between a small decoder's image and the real one.

    The decoder: bilinear interpolation to the size of the image, conv3x3, BN, ReLU, conv3x3, sigmoid.

    Raises:
        ValueError: the module's output is not a map, or the data are not images.
    """

    wants_image = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        if len(place.output_shape) != 3 or len(place.image_shape) != 3:
            raise ValueError(
                f"the reconstruction makes images [C, H, W] from maps [C, H, W]; here {list(place.image_shape)} "
                f"from {list(place.output_shape)}"
            )
        self.first = nn.Conv2d(place.output_shape[0], CHANNELS, 3, padding=1)
        self.norm = nn.BatchNorm2d(CHANNELS, track_running_stats=False)
        self.last = nn.Conv2d(CHANNELS, place.image_shape[0], 3, padding=1)

    def forward(self, out: Tensor, y: Tensor, image: Tensor | None) -> Tensor:
        """The loss (0-d float32) of maps [B, C, h, w] and images [B, C', H, W] from 0 to 1."""
        assert image is not None, "the image was not handed over"
        if out.shape[2:] != image.shape[2:]:
            out = functional.interpolate(out, image.shape[2:], mode="bilinear", align_corners=True)
        logits = self.last(functional.relu_(self.norm(self.first(out))))
        return functional.binary_cross_entropy_with_logits(logits.float(), image)
