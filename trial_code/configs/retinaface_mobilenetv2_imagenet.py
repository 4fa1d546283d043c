"""MobileNetV2 of full width with ReLU6, whose backbone starts from torchvision's ImageNet weights."""

_base_ = "retinaface_mobilenetv2.py"

model = {
    "backbone": {"_delete_": True, "type": "FaceMobileNetV2", "width": 1.0},
    "neck": {"in_channels": (32, 96, 320)},
}
