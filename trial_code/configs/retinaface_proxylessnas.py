"""The HyperFD paper's architecture space: ProxylessNAS' blocks at half MobileNetV2's width, 80 channels elsewhere.

Without parameters this is the largest network of the space, which is trained once with pretrain.py. A trial sets the
architecture that NNI proposes, which inherits its weights from that network.
"""

_base_ = "retinaface_mobilenetv2.py"

model = {
    "backbone": {
        "_delete_": True,
        "type": "SearchableMobileNetV2",
        "act_cfg": {"type": "LeakyReLU", "negative_slope": 0.1},
    },
}
