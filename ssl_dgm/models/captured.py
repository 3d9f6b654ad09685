"""An update as one CUDA graph: its hundreds of kernels are launched by a single call, without Python between them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

UPDATES_BEFORE = 3  # run as usual, so that libraries set themselves up and the optimiser has its state


class Captured:
    """A function of tensors that always have the same shapes, captured after a few calls and replayed from then on.

    Arguments are copied to buffers of its own, and results are buffers that the next call overwrites. On a CPU, where
    nothing can be captured, every call runs the function on those same buffers.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls = 0
        self.buffers: tuple[Any, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.results: Any = None

    def __call__(self, *args: Any) -> Any:
        if not self.calls:
            self.buffers = tree_map(torch.clone, args)
        else:
            tree_map(lambda buffer, new: buffer.copy_(new), self.buffers, args)
        self.calls += 1
        if _device_of(args).type != "cuda":
            return self.function(*self.buffers)
        if self.graph is not None:
            self.graph.replay()
        elif self.calls <= UPDATES_BEFORE:
            self._run_aside()
        else:
            self._capture()
        return self.results

    def _run_aside(self) -> None:
        """As CUDA asks of what is captured later: not on the default stream."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.results = self.function(*self.buffers)
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self) -> None:
        """Records the function, which does not run it, and then runs the record."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.results = self.function(*self.buffers)
        self.graph = graph
        graph.replay()


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Moves what an update of the optimiser reads besides gradients to the device: the rate, which a schedule sets."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        if "capturable" in group and device.type == "cuda":
            group["capturable"] = True


def _device_of(tree: Any) -> torch.device:
    found: list[Tensor] = []
    tree_map(found.append, tree)
    return found[0].device
