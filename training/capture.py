"""Many steps at once on a GPU: a captured CUDA graph of the steps of a chunk.

A step is some two hundred small kernels, each shorter than its launch from the host.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training.epoch import Advance, Run, State, take_steps
from training.steps.noise import StepRows

CPU_CHUNK = 8  # steps whose rows are gathered at once: they stay in the cache until used
GPU_CHUNKS = range(128, 63, -1)


def cut_plan(plan: list[StepRows], batch_rows: int, device: torch.device) -> list[list[StepRows]]:
    """The steps of an epoch in chunks: all of the same number of full batches but the last."""
    if device.type == "cpu":
        count = CPU_CHUNK
    else:
        full = sum(step.batch_rows == batch_rows for step in plan)
        count = min(GPU_CHUNKS, key=lambda steps: full % steps)
    return [plan[first : first + count] for first in range(0, len(plan), count)]


def advance_on(run: Run, state: State) -> Advance:
    """What takes the steps of a chunk: one after the other, on a GPU as a graph if it can be.

    Workers that share batches take them one after the other too: their sums are exchanged in
    between.
    """

    def step_by_step(steps: list[StepRows]) -> None:
        take_steps(run, state, steps)

    if not can_capture(run):
        return step_by_step
    first = run.chunks[0]
    replay: list[Callable[[], None]] = []

    def graphed(steps: list[StepRows]) -> None:
        if len(steps) < len(first) or steps[-1].batch_rows < first[0].batch_rows:
            step_by_step(steps)
            return
        if not replay:
            replay.append(_capture(lambda: step_by_step(first), run.buffers.fault))
        replay[0]()

    return graphed


def can_capture(run: Run) -> bool:
    """Whether there is a GPU, no other worker, and a chunk of full batches."""
    first, worker = run.chunks[0], run.worker
    is_full = first[-1].batch_rows == run.settings.batch_rows
    return worker.device.type == "cuda" and worker.world_size == 1 and is_full


def _capture(work: Callable[[], None], fault: Tensor) -> Callable[[], None]:
    """The work as a graph; it is done once before, as for a fault: without any update."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        fault.fill_(1.0)
        work()
        fault.fill_(0.0)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
