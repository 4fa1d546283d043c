"""Training a detector to imitate another one, which has seen more images (knowledge distillation).

The teacher says more of an image than its annotations do: what each level of the pyramid should look like, and for each
anchor a probability, a box and landmarks. Both need the same anchors; their backbones and widths may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models import DetDataPreprocessor
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from nni_hyperfd.space import PARAMETERS, Architecture, ArchitectureSpace
from retinaface.backbones import SearchableMobileNetV2
from retinaface.detector import RetinaFace
from retinaface.inherit import inherit
from retinaface.remap import narrow

SURE = 0.3
"""Boxes and landmarks are imitated at anchors for which the teacher's probability of a face is above this."""

Losses = dict[str, Any]


class Outputs(NamedTuple):
    """What a detector says of a batch, level by level.

    Attributes:
        laterals: maps after the lateral convolutions of the neck, (B, C, H, W).
        predictions: classes, boxes and landmarks, as the head returns them.
    """

    laterals: list[Tensor]
    predictions: tuple[list[Tensor], list[Tensor], list[Tensor]]

    @classmethod
    def of(cls, detector: RetinaFace, maps: tuple[Tensor, ...]) -> Outputs:
        """The outputs of a detector for the maps of its backbone, or of another backbone with the same channels."""
        laterals = detector.neck.begin(maps)
        return cls(laterals, detector.bbox_head(detector.neck.finish(laterals)))

    def of_anchors(self) -> list[Tensor]:
        """Logits (B, A, 2), boxes (B, A, 4) and landmarks (B, A, 10) of all levels."""
        return [
            torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, values) for level in levels], dim=1)
            for levels, values in zip(self.predictions, (2, 4, 10), strict=True)
        ]


@MODELS.register_module()
class Imitation(RetinaFace):
    """A RetinaFace that learns from a teacher beside its annotations; what it saves is a RetinaFace.

    Args:
        args, kwargs: passed to RetinaFace.
        teacher: config of the RetinaFace to imitate, with its weights.
        transplant: begin with the teacher's neck and head, see `transplant`.
        architectures: in each step, train a random architecture of the space as well, with inherited weights. The
            backbone must be a SearchableMobileNetV2 with the largest architecture.
    """

    def __init__(
        self,
        *args: Any,
        teacher: dict[str, Any],
        transplant: bool = False,
        architectures: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # In a tuple it is no submodule, so it is not saved.
        self._teacher = (MODELS.build(teacher).to(memory_format=torch.channels_last),)
        self._transplant = transplant
        self._architectures = architectures

    def init_weights(self) -> None:
        """Load the weights of both detectors."""
        super().init_weights()
        (teacher,) = self._teacher
        teacher.init_weights()
        if self._transplant:
            transplant(teacher, self)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> Losses:
        """Losses of the annotations and of the imitation, by name."""
        wanted = self._wanted(batch_inputs)
        losses = self._losses(self.backbone(batch_inputs), batch_data_samples, wanted)
        if self._architectures:
            with keeping_buffers(self.neck):
                maps = inherited_maps(self.backbone, _random_architecture(), batch_inputs)
                inherited = self._losses(maps, batch_data_samples, wanted)
            losses |= {f"{name}_inherited": loss for name, loss in inherited.items()}
        return losses

    @torch.no_grad()
    def _wanted(self, images: Tensor) -> Outputs:
        (teacher,) = self._teacher
        teacher.to(images.device).eval()
        images = renormalised(images, self.data_preprocessor, teacher.data_preprocessor)
        return Outputs.of(teacher, teacher.backbone(images))

    def _losses(self, maps: tuple[Tensor, ...], samples: list[Any], wanted: Outputs) -> Losses:
        found = Outputs.of(self, maps)
        instances, ignored, metas = unpack_gt_instances(samples)
        annotated: Losses = self.bbox_head.loss_by_feat(*found.predictions, instances, metas, ignored)
        return annotated | imitation_losses(found, wanted)


def imitation_losses(found: Outputs, wanted: Outputs) -> Losses:
    """Losses by which a detector learns the outputs of a teacher, by name.

    They are the smooth L1 of the teacher's lateral maps, in standard deviations of each channel; the Kullback-Leibler
    divergence of its probabilities; and the smooth L1 of its boxes and landmarks, weighted with its probability of a
    face. The last three are divided by the sum of these weights.
    """
    maps = [_map_loss(own, teacher) for own, teacher in zip(found.laterals, wanted.laterals, strict=True)]
    (scores, boxes, landmarks), (their_scores, their_boxes, their_landmarks) = found.of_anchors(), wanted.of_anchors()
    face = their_scores.softmax(dim=-1)[..., 0]
    weight = face * (face > SURE)
    total = weight.sum().clamp(min=1)
    divergence = F.kl_div(scores.log_softmax(-1), their_scores.log_softmax(-1), reduction="none", log_target=True)

    def distance(own: Tensor, teacher: Tensor) -> Tensor:
        return (F.smooth_l1_loss(own, teacher, reduction="none").mean(dim=-1) * weight).sum() / total

    return {
        "loss_their_maps": maps,
        "loss_their_faces": divergence.sum() / total,
        "loss_their_boxes": 4 * distance(boxes, their_boxes),
        "loss_their_landmarks": distance(landmarks, their_landmarks),
    }


def _map_loss(own: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between a map and the first channels of one that has at least as many."""
    scale = teacher.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-3)
    return F.smooth_l1_loss(own[:, : teacher.shape[1]] / scale, teacher / scale)


def transplant(teacher: RetinaFace, student: RetinaFace) -> None:
    """Give a detector the neck and the head of a narrower one, except for the weights of the lateral convolutions.

    Its predictions are those of the teacher where its lateral maps begin with the teacher's. Further channels have no
    effect on them until they are trained.
    """
    tensors, _ = inherit(teacher.neck.state_dict(), student.neck.state_dict())
    student.neck.load_state_dict(tensors)
    theirs, ours = (detector.neck.contexts[0] for detector in (teacher, student))
    # A context module puts its three maps one after the other, and each of them has more channels here.
    channels: list[int] = []
    start = 0
    for name in ("see3", "see5", "see7"):
        channels += range(start, start + getattr(theirs, name).out_channels)
        start += getattr(ours, name).out_channels
    head = student.bbox_head.state_dict()
    for name, tensor in teacher.bbox_head.state_dict().items():
        if name.endswith("weight"):
            head[name].zero_()[:, channels] = tensor
        else:
            head[name].copy_(tensor)


def renormalised(images: Tensor, own: DetDataPreprocessor, other: DetDataPreprocessor) -> Tensor:
    """Images (B, 3, H, W), normalised by one preprocessor, as another one would have normalised them."""
    pixels = images * own.std + own.mean
    if own._channel_conversion != other._channel_conversion:
        pixels = pixels.flip(1)
    result: Tensor = (pixels - other.mean) / other.std
    return result


def inherited_maps(largest: SearchableMobileNetV2, architecture: Architecture, images: Tensor) -> tuple[Tensor, ...]:
    """Maps of an architecture with weights inherited from the largest one, into which gradients flow back."""
    backbone = SearchableMobileNetV2(architecture.stages).to(images.device)
    given = dict(largest.named_parameters()) | {name: buffer.clone() for name, buffer in largest.named_buffers()}
    maps: tuple[Tensor, ...] = functional_call(backbone, narrow(given, backbone.state_dict()), (images,))
    return maps


def _random_architecture() -> Architecture:
    space = ArchitectureSpace.of({name: parameter.values for name, parameter in PARAMETERS.items()})
    seed = int(torch.randint(2**31, ()))  # torch's random numbers are those that a run is seeded with
    return Architecture.of(space.sample(np.random.default_rng(seed)))


@contextmanager
def keeping_buffers(module: nn.Module) -> Iterator[None]:
    """What is computed inside does not change the buffers of a module, such as the statistics of normalisations."""
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    yield
    for name, buffer in module.named_buffers():
        buffer.data.copy_(kept[name])  # unseen by autograd, for which normalisations in training read no buffers
