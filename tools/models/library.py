"""Models of torchvision and timm that the tools cut and export, as NAME@SIDE (side of the images in pixels)."""

LIBRARY_MODELS = (
    "torchvision:resnet18@32",
    "torchvision:resnet50@32",
    "torchvision:mobilenet_v2@32",
    "torchvision:efficientnet_b0@32",
    "torchvision:vgg11_bn@32",
    "torchvision:convnext_tiny@32",
    "torchvision:swin_t@64",
    "torchvision:vit_b_16@32",
    "timm:mobilenetv3_small_050@32",
    "timm:vit_tiny_patch16_224@32",
    "timm:convnext_atto@32",
    "timm:mixer_s32_224@64",
    "timm:regnety_002@32",
    "timm:densenet121@32",
)
