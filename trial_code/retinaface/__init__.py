"""RetinaFace as modules of MMDetection 3.x.

Importing the package imports neither torch nor mmdet. It only makes mmdet importable where mmcv has no compiled ops
(see `bridge`). The modules are registered with mmdet by `retinaface.modules`, which the configs name in
`custom_imports`.
"""

from retinaface import bridge

bridge.install()
