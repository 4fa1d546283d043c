"""Data, evaluation and schedule of all detectors (values of the HyperFD paper, appendix B.1).

The scripts set the folder of the data and the sizes. With mmdet's tools the folder is that of the environment variable
HYPERFD_DATA, unless a config with this one as `_base_` names another:
HYPERFD_DATA=FOLDER python mmdet_tool.py train configs/retinaface_mobilenetv2.py
"""

runner_type = "StrictRunner"
custom_imports = {"imports": ["retinaface.modules"], "allow_failed_imports": False}
default_scope = "mmdet"
data_root = "{{$HYPERFD_DATA:data/faces}}"

train_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadFaceAnnotations", "with_bbox": True},
    {"type": "RandomSquareCrop", "min_ratio": 0.3},
    {"type": "ResizeFaces", "scale": (640, 640)},
    {"type": "FlipFaces", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackFaceInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape")},
]
# The image is resized before its annotations are loaded, so that boxes stay in pixels of the file. mmdet scales the
# detections back to these.
val_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "ResizeShortestEdge", "scale": 720, "max_size": 2880},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
]
train_dataloader = {
    "batch_size": 32,
    "num_workers": 2,
    "persistent_workers": True,
    "drop_last": False,
    "sampler": {"type": "DefaultSampler", "shuffle": True},
    "dataset": {
        "type": "FaceCocoDataset",
        "data_root": data_root,
        "ann_file": "train.json",
        "pipeline": train_pipeline,
    },
}
val_dataloader = {
    "batch_size": 8,
    "num_workers": 2,
    "persistent_workers": True,
    "drop_last": False,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "dataset": {
        "type": "FaceCocoDataset",
        "data_root": data_root,
        "ann_file": "val.json",
        "pipeline": val_pipeline,
        "test_mode": True,
        "min_face": 0.05,
    },
}
val_evaluator = {"type": "FaceAP"}
test_dataloader = {**val_dataloader, "dataset": {**val_dataloader["dataset"], "ann_file": "test.json"}}
test_evaluator = val_evaluator

train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": 1000, "val_interval": 10}
val_cfg = {"type": "ValLoop"}
test_cfg = {"type": "TestLoop"}
optim_wrapper = {
    "type": "OptimWrapper",
    "optimizer": {"type": "SGD", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
    "clip_grad": {"max_norm": 10},
}
# The learning rate and early stopping both count validations without a higher AP. mmengine lowers the rate when there
# are more than `patience` of them in a row, hence at the fifth; it stops the run at the eighth.
param_scheduler = [
    {
        "type": "ReduceOnPlateauParamScheduler",
        "param_name": "lr",
        "monitor": "face/ap50",
        "rule": "greater",
        "threshold": 1e-6,
        "threshold_rule": "abs",
        "factor": 0.1,
        "patience": 4,
    }
]
default_hooks = {
    "checkpoint": {
        "type": "ResumableCheckpoint",
        "interval": 1,
        "max_keep_ckpts": 2,
        "save_last": False,
        "save_best": "face/ap50",
        "rule": "greater",
    },
    "logger": {"type": "LoggerHook", "interval": 50},
    "visualization": {"type": "DetVisualizationHook"},
}
custom_hooks = [
    {"type": "ResumableEarlyStopping", "monitor": "face/ap50", "rule": "greater", "patience": 8, "min_delta": 1e-6},
    {"type": "StopOnInvalidLoss"},
]
visualizer = {"type": "DetLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "name": "visualizer"}
randomness = {"seed": 0, "deterministic": True}
env_cfg = {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}}
