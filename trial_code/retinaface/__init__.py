"""RetinaFace as an MMDetection 3.x job.

Importing the package is light: it only makes mmdet importable where mmcv has no compiled ops (see `bridge`). What
registers modules with mmdet is imported by `retinaface.modules`, which the configs name in `custom_imports`.
"""

from retinaface import bridge

bridge.install()
