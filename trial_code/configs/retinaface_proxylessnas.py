"""The paper's architecture space: ProxylessNAS' blocks at half MobileNetV2's width, 80 channels in neck and head.

As it stands this is the space's largest network, to be trained once with pretrain.py. A trial sets the architecture
that NNI proposes, which inherits its weights from that network.
"""

_base_ = "retinaface_mobilenetv2.py"

model = {
    "backbone": {
        "_delete_": True,
        "type": "SearchableMobileNetV2",
        "act_cfg": {"type": "LeakyReLU", "negative_slope": 0.1},
    },
}
