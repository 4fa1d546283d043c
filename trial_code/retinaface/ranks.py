"""One run on several GPUs of this machine: a process for each, as mmengine's launcher `pytorch` has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import multiprocessing

from retinaface.job import JobError
from retinaface.training import Outcome, run

if TYPE_CHECKING:
    from mmengine.config import Config


def run_on(gpus: int, config: Config, work_dir: Path, report: Callable[[float], None]) -> Outcome:
    """`training.run` with the config's batch shared among so many processes; `report` is called in this one.

    Raises JobError if the batch cannot be shared evenly, or with what went wrong in a process; the others are ended
    then.
    """
    loader = config.train_dataloader
    if loader.batch_size % gpus:
        raise JobError(f"a batch of {loader.batch_size} cannot be shared by {gpus} GPUs; make it a multiple.")
    loader.batch_size //= gpus
    # Batch statistics are each process's own until then; every one of them validates a part of the images.
    config.custom_hooks.append({"type": "SyncBuffersHook"})
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    with TemporaryDirectory() as folder:
        arguments = (gpus, Path(folder, "meeting"), config, work_dir, messages)
        processes = multiprocessing.spawn(_rank, arguments, nprocs=gpus, join=False)
        outcome, ended = None, False
        try:
            while not (ended and messages.empty()):
                ended = ended or processes.join(timeout=1)
                while not messages.empty():
                    message = messages.get()
                    if isinstance(message, Outcome):
                        outcome = message
                    else:
                        report(message)
        except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException) as error:
            raise JobError(str(error).strip().splitlines()[-1]) from error
        finally:
            for process in processes.processes:
                process.terminate()
    return outcome


def _rank(rank: int, count: int, meeting: Path, config: Config, work_dir: Path, messages) -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "nccl"
    os.environ["LOCAL_RANK"] = str(rank)  # mmengine asks for it when it wraps the model
    config.launcher = "pytorch"
    torch.distributed.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=count)
    try:
        outcome = run(config, work_dir, messages.put)
        if rank == 0:
            messages.put(outcome)
    finally:
        torch.distributed.destroy_process_group()
