"""The HyperFD paper's detector: MobileNetV2 of half width with LeakyReLU, 80 channels in neck and head."""

_base_ = "retinaface_mobilenet025.py"

model = {
    # ImageNet's mean and standard deviation, as RGB.
    "data_preprocessor": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True},
    "backbone": {
        "_delete_": True,
        "type": "FaceMobileNetV2",
        "width": 0.5,
        "act_cfg": {"type": "LeakyReLU", "negative_slope": 0.1},
    },
    "neck": {"in_channels": (16, 48, 160), "out_channels": 80},
    "bbox_head": {"in_channels": (80, 80, 80)},
}
