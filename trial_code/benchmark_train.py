"""How fast a job trains and evaluates, beside a bare PyTorch loop over the same model and loader.

    python benchmark_train.py --data FOLDER --weights FILE [--config ...] [--size 320] [--batch-size 8] [--limit 64] ...

Both in images a second, from one run, taken in turn; on a machine with other work give --cpu-time. "job" is an epoch of
a trial with everything that a trial does in it, or one of its validations with the metric;
"bare" is loader, forward pass, loss, backward pass and optimizer step, or loader and detections. Also the start-up,
from the start of this program to its first step, imports included.
"""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from retinaface.face_dataset import FaceDataset
from retinaface.job import Job, run_script


def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=64, help="images of an epoch, and of a validation at most")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, taken in turn; medians count")
    parser.add_argument("--cpu-time", action="store_true", help="this process's time only; with --workers 0, no GPU")
    arguments = parser.parse_args(argv)
    dataset = FaceDataset(Job.from_arguments(arguments))
    measured = measure(dataset, arguments.limit, arguments.repeats, arguments.cpu_time)
    for what, (job, bare) in measured.items():
        print(f"{what}: job {job:.1f} images/s, bare loop {bare:.1f} images/s, ratio {job / bare:.2f}")
    print(f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    return measured


def measure(dataset: FaceDataset, limit: int, repeats: int, cpu_time: bool = False) -> dict[str, tuple[float, float]]:
    """Medians of images a second of the job and of the bare loop, for training and for evaluation."""
    import torch
    from mmengine.hooks import Hook
    from retinaface.parameters import apply_parameters
    from retinaface.training import build_runner, use_split

    config = apply_parameters(dataset.job.load_config(), {"learning_rate": 1e-5})
    # The first epoch allocates; it and the last one, which is validated, are not counted.
    config.train_cfg.update(max_epochs=repeats + 2, val_interval=repeats + 2)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.indices = limit
    rates: dict[str, tuple[list[float], list[float]]] = {"training": ([], []), "evaluation": ([], [])}

    def clock() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.process_time() if cpu_time else time.perf_counter()

    def rate(work, images: int) -> float:
        began = clock()
        work()
        return images / (clock() - began)

    class JobClock(Hook):
        """Around everything else that happens in an epoch."""

        def before_train_epoch(self, runner) -> None:
            self.began = clock()

    class BareLoops(Hook):
        """Run after each epoch of the job, and the job's validation beside its own."""

        priority = "LOWEST"

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            if runner.iter == 0:
                print(f"start-up: {time.time() - psutil.Process().create_time():.1f} s to the first step", flush=True)

        def after_train_epoch(self, runner) -> None:
            images = len(runner.train_dataloader.dataset)
            job = images / (clock() - timer.began)
            model, optimizer = runner.model, runner.optim_wrapper.optimizer
            bare = rate(lambda: _train(model, optimizer, runner.train_dataloader), images)
            if 0 < runner.epoch <= repeats:
                for values, value in zip(rates["training"], (job, bare), strict=True):
                    values.append(value)

        def after_train(self, runner) -> None:
            images = len(runner.val_dataloader.dataset)
            model = runner.model.eval()
            loop = runner.val_loop
            for _ in range(repeats):
                rates["evaluation"][0].append(rate(lambda: _validate(loop), images))
                rates["evaluation"][1].append(rate(lambda: _detect(model, runner.val_dataloader), images))

    timer = JobClock()
    with TemporaryDirectory() as folder:
        use_split(config.train_dataloader, dataset.train, Path(folder))
        use_split(config.val_dataloader, dataset.val, Path(folder))
        runner = build_runner(config, Path(folder))
        runner.register_hook(timer, priority="HIGHEST")
        runner.register_hook(BareLoops(), priority="LOWEST")
        runner.train()
    return {what: (statistics.median(job), statistics.median(bare)) for what, (job, bare) in rates.items()}


def _train(model, optimizer, loader) -> None:
    """What a training loop cannot do without."""
    import torch

    model.train()
    for batch in loader:
        batch = model.data_preprocessor(batch, True)
        losses = model.loss(batch["inputs"], batch["data_samples"])
        loss = sum(torch.stack(part).sum() if isinstance(part, list) else part for part in losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()


def _validate(loop) -> None:
    import torch

    with torch.no_grad():
        for number, batch in enumerate(loop.dataloader):
            loop.run_iter(number, batch)
    loop.evaluator.evaluate(len(loop.dataloader.dataset))


def _detect(model, loader) -> None:
    import torch

    with torch.no_grad():
        for batch in loader:
            model.test_step(batch)


if __name__ == "__main__":
    run_script(main)
