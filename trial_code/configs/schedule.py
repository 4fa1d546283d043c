"""Data, evaluation and schedule shared by all detectors (values of the paper, appendix B.1)."""

custom_imports = {"imports": ["retinaface.modules"], "allow_failed_imports": False}
default_scope = "mmdet"

train_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadFaceAnnotations", "with_bbox": True},
    {"type": "RandomSquareCrop", "min_ratio": 0.3},
    {"type": "ResizeFaces", "scale": (640, 640)},
    {"type": "FlipFaces", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackFaceInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape")},
]
# The image is resized before its annotations are loaded: truth stays in the pixels of the file, to which mmdet scales
# the detections back.
val_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "ResizeShortestEdge", "scale": 720, "max_size": 2880},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
]
# `ann_file` of both is filled in by the job: annotations that were checked, with absolute file names.
train_dataloader = {
    "batch_size": 32,
    "num_workers": 2,
    "persistent_workers": True,
    "drop_last": False,
    "sampler": {"type": "DefaultSampler", "shuffle": True},
    "dataset": {"type": "FaceCocoDataset", "ann_file": "", "data_prefix": {"img": ""}, "pipeline": train_pipeline},
}
val_dataloader = {
    "batch_size": 8,
    "num_workers": 2,
    "persistent_workers": True,
    "drop_last": False,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "dataset": {
        "type": "FaceCocoDataset",
        "ann_file": "",
        "data_prefix": {"img": ""},
        "pipeline": val_pipeline,
        "test_mode": True,
        "min_face": 0.05,
    },
}
val_evaluator = {"type": "FaceAP"}

train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": 1000, "val_interval": 10}
val_cfg = {"type": "ValLoop"}
optim_wrapper = {
    "type": "OptimWrapper",
    "optimizer": {"type": "SGD", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
    "clip_grad": {"max_norm": 10},
}
# One step of the scheduler is one validation.
param_scheduler = [
    {
        "type": "ReduceOnPlateauParamScheduler",
        "param_name": "lr",
        "monitor": "face/ap50",
        "rule": "greater",
        "factor": 0.1,
        "patience": 5,
    }
]
default_hooks = {
    "checkpoint": {
        "type": "CheckpointHook",
        "interval": -1,
        "save_last": False,
        "save_best": "face/ap50",
        "rule": "greater",
    },
    "logger": {"type": "LoggerHook", "interval": 50},
}
custom_hooks = [
    {"type": "EarlyStoppingHook", "monitor": "face/ap50", "rule": "greater", "patience": 8, "min_delta": 1e-6},
    {"type": "StopOnInvalidLoss"},
]
randomness = {"seed": 0, "deterministic": True}
env_cfg = {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}}
log_level = "WARNING"
