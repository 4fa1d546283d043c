"""One training run on several GPUs of this machine, with one process per GPU as mmengine's launcher `pytorch` has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from retinaface.options import ScriptError
from retinaface.runs import Outcome, run

if TYPE_CHECKING:
    from mmengine.config import Config


def run_on(gpus: int, config: Config, work_dir: Path, report: Callable[[float], None]) -> Outcome:
    """`runs.run` with the config's batch divided among several processes.

    Args:
        gpus: number of processes.
        config: as in `runs.run`; changed in place.
        work_dir: as in `runs.run`.
        report: as in `runs.run`, called in this process.

    Raises:
        ScriptError: the batch size is not a multiple of `gpus`, or a process has failed, for the reason that the
            message gives; the other processes are ended then.
    """
    loader = config.train_dataloader
    if loader.batch_size % gpus:
        raise ScriptError(f"a batch of {loader.batch_size} cannot be shared by {gpus} GPUs; make it a multiple.")
    loader.batch_size //= gpus
    # During training each process has its own batch statistics, but all validate one detector, on a part of the images.
    config.custom_hooks.append({"type": "SyncBuffersHook"})
    messages = get_context("spawn").SimpleQueue()
    with TemporaryDirectory() as folder:
        arguments = (gpus, Path(folder, "meeting"), config, work_dir, messages)
        processes = spawn(_rank, arguments, nprocs=gpus, join=False)
        try:
            return _follow(processes, messages, report)
        except (ProcessRaisedException, ProcessExitedException) as error:
            raise ScriptError(str(error).strip().splitlines()[-1]) from error
        finally:
            for process in processes.processes:
                process.terminate()


def _follow(processes: Any, messages: Any, report: Callable[[float], None]) -> Outcome:
    """Report each AP@50 that arrives until all processes have ended; returns the outcome."""
    outcome, ended = None, False
    while not (ended and messages.empty()):
        ended = ended or processes.join(timeout=1)
        while not messages.empty():
            message = messages.get()
            if isinstance(message, Outcome):
                outcome = message
            else:
                report(message)
    assert outcome is not None  # the first process sends it before it ends
    return outcome


def _rank(rank: int, count: int, meeting: Path, config: Config, work_dir: Path, messages: Any) -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "nccl"
    os.environ["LOCAL_RANK"] = str(rank)  # mmengine reads it when it wraps the model
    config.launcher = "pytorch"
    torch.distributed.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=count)
    try:
        outcome = run(config, work_dir, messages.put)
        if rank == 0:
            messages.put(outcome)
    finally:
        torch.distributed.destroy_process_group()
