"""What the service trials of a task are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_hyperfd.platform.past import past_tasks
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.state.views import TaskView
from nni_hyperfd.task import Phase, Replay
from nni_hyperfd.wire import ExtractJob, Job, LearnJob

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def job_of(platform: Platform, task_id: int, phase: Phase) -> Job | None:
    """The job of a task's trial; None for one that tries a configuration."""
    if phase is Phase.EXTRACT:
        return extract_job(platform, task_id)
    return learn_job(platform, task_id) if phase is Phase.LEARN else None


def extract_job(platform: Platform, task_id: int) -> ExtractJob:
    """The extractor of the task, and the versions whose meta-features can be carried over to it."""
    extractor, _ = platform.versions.tensors(platform.task(task_id).extractor_id)
    return ExtractJob(extractor, bool(extractor) and platform.may_start_anew(), platform.versions.digests())


def learn_job(platform: Platform, task_id: int) -> LearnJob:
    """The extractor, the embeddings and performances of the task's own trials, and some images of D_off.

    Nothing of other clients, unless the task's settings say ``replay: meta-features``: then up to 32 of those whose
    owners share them, in the space of the task's extractor and in random order. No data set of the platform's own that
    its operator marks private.
    """
    import torch

    from nni_hyperfd.method import recipe

    task, versions = platform.task(task_id), platform.versions
    extractor, importance = versions.tensors(task.extractor_id)
    configurations = task.results.configurations
    encoded = task.space.encode(configurations) if configurations else None
    rng = recipe.task_rng(task.settings.seed, task.id)
    offline = recipe.images_for_client(versions.offline_for_clients(), rng)
    return LearnJob(
        extractor,
        importance,
        recipe.embedded(platform.learning.encoder(task.space).encoder, encoded),
        torch.tensor(task.results.performance),
        recipe.task_seed(task.settings.seed, task.id),
        offline,
        _replay(platform, task, rng) if task.settings.replay is Replay.META_FEATURES else None,
    )


def _replay(platform: Platform, task: TaskView, rng: np.random.Generator) -> Tensor | None:
    """Meta-features (k, 64) of other clients, without a name on them."""
    import torch

    past = [other for other in past_tasks(platform.store, task.space, rng) if other.dataset is None and other.share]
    others = list(platform.versions.carried(past, task.extractor_id).values())
    return torch.stack([others[place] for place in rng.permutation(len(others))]) if others else None
