"""The released RetinaFace: MobileNetV1 of width 0.25, 64 channels in neck and head."""

_base_ = "schedule.py"

model = {
    "type": "RetinaFace",
    # What the released weights were trained with (measured in tests/trial_code/test_convert.py).
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        "mean": [104, 117, 123],
        "std": [1, 1, 1],
        "bgr_to_rgb": True,
        "pad_size_divisor": 32,
    },
    "backbone": {"type": "FaceMobileNetV1", "width": 0.25},
    "neck": {"type": "RetinaFaceNeck", "in_channels": (64, 128, 256), "out_channels": 64},
    "bbox_head": {
        "type": "RetinaFaceHead",
        "num_classes": 1,
        "in_channels": (64, 64, 64),
        "location_weight": 2.0,
        # Two square anchors per cell (16 and 32, 64 and 128, 256 and 512 pixels), at its centre.
        "anchor_generator": {
            "type": "AnchorGenerator",
            "base_sizes": [16, 64, 256],
            "scales": [1, 2],
            "ratios": [1.0],
            "strides": [8, 16, 32],
            "centers": [(4, 4), (8, 8), (16, 16)],
        },
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder", "target_stds": [0.1, 0.1, 0.2, 0.2]},
    },
    "train_cfg": {
        "assigner": {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": 0.35,
            "neg_iou_thr": 0.3,
            "min_pos_iou": 0.2,
            "gt_max_assign_all": False,
            "ignore_iof_thr": 0.5,
        },
        "sampler": {"type": "PseudoSampler"},
        "allowed_border": -1,
        "pos_weight": -1,
        "neg_pos_ratio": 7,
        "smoothl1_beta": 1.0,
    },
    "test_cfg": {
        "nms_pre": 1000,
        "score_thr": 0.02,
        "nms": {"type": "nms", "iou_threshold": 0.4},
        "min_bbox_size": 0,
        "max_per_img": 750,
    },
}
