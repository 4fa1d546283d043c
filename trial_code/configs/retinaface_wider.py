"""The default start: RetinaFace with MobileNetV1 of width 0.25, trained on WIDER FACE with BGR images."""

_base_ = "retinaface_mobilenet025.py"

# As in its training (yakhyo/retinaface-pytorch), with the mean of the base config. The package that carries the weights
# subtracts 127 in place of 123, which costs AP.
model = {"data_preprocessor": {"bgr_to_rgb": False}}
