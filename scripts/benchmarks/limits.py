"""What the machine could do, and what an update asks of it: products, bytes, floors."""

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ssl_dgm.training.fit import find_device

from .cases import Case
from .loops import Bare
from .race import Turns

TYPES = {"32": torch.float32, "bf16": torch.bfloat16}
Product = tuple[int, int, int, int]  # how many at once, then m, k, n


def sizes(device: str) -> tuple[int, int]:
    """Side of the square product that stands for the peak, and bytes of the copy: too large for caches and launches."""
    return (1024, 64 << 20) if device == "cpu" else (8192, 1 << 30)


@dataclass(frozen=True)
class Products:
    """Matrix products, one after the other, as a case of `products`."""

    shapes: tuple[Product, ...]
    precision: str
    device: str
    threads: int


def operations(shape: Product) -> int:
    """Floating-point operations of a product, an addition and a multiplication being two."""
    b, m, k, n = shape
    return 2 * b * m * k * n


def products(case: Products, turns: Turns) -> None:
    """All products of the case are one 'update'; each shape's own GFLOP/s are facts."""
    operands = {shape: _operands(shape, case) for shape in set(case.shapes)}
    turns.facts |= {str(shape): _rate_of(shape, pair) for shape, pair in operands.items()}
    while True:
        for shape in case.shapes:
            torch.matmul(*operands[shape])
        turns()


def copy(case: Case, turns: Turns) -> None:
    """One copy per 'update', which reads and writes its bytes."""
    _, size = sizes(case.device)
    here = torch.ones(size, dtype=torch.uint8, device=find_device(case.device))
    there = torch.zeros_like(here)
    while True:
        there.copy_(here)
        turns()


def _operands(shape: Product, case: Products) -> tuple[Tensor, Tensor]:
    b, m, k, n = shape
    batch = (b,) if b > 1 else ()
    options: Any = {"dtype": TYPES[case.precision], "device": find_device(case.device)}
    return torch.randn(*batch, m, k, **options), torch.randn(*batch, k, n, **options)


def _rate_of(shape: Product, operands: tuple[Tensor, Tensor]) -> Callable[[], float]:
    def rate() -> float:
        synchronize = torch.cuda.synchronize if operands[0].is_cuda else lambda: None
        best, until = float("inf"), time.perf_counter() + 0.1
        while time.perf_counter() < until:
            started = time.perf_counter()
            for _ in range(5):
                torch.matmul(*operands)
            synchronize()
            best = min(best, (time.perf_counter() - started) / 5)
        return operations(shape) / best / 1e9

    return rate


@dataclass(frozen=True)
class Count:
    """What one update does, forwards, backwards and in Adam."""

    flops: int
    compulsory: int  # bytes that cannot stay in a cache from one update to the next: parameters, Adam's state, rows
    eager: int  # bytes that its operations read and write, one after the other
    products: tuple[Product, ...]


def count(case: Case) -> Count:
    """Counts an update of the bare loop, the second, since Adam makes its state in the first."""
    loop = Bare(case)
    loop.update()
    batch = loop.data.batch(0, 1)
    with FlopCounterMode(display=False) as flops:
        loop.step(batch)
    with _Traffic() as traffic:
        loop.step(batch)
    weights = sum(p.numel() * p.element_size() for p in loop.model.parameters())
    # A weight is read forwards and backwards, by Adam with both moments and its gradient, and these are written.
    compulsory = 10 * weights + sum(t.numel() * t.element_size() for t in batch)
    return Count(flops.get_total_flops(), compulsory, traffic.bytes, tuple(traffic.products))


class _Traffic(TorchDispatchMode):
    """Adds up what operations read and write; views move nothing, and a tensor expanded counts as its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.products = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        memory = {t.untyped_storage().data_ptr() for t in read}
        changed = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
        if made and not changed and all(t.untyped_storage().data_ptr() in memory for t in made):
            return out
        self.bytes += sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in read + made)
        if func._schema.name.split("::")[1] in ("mm", "addmm", "bmm", "baddbmm"):
            left, right = [t for t in read if t.dim() >= 2][-2:]
            self.products.append((*itertools.repeat(1, 3 - left.dim()), *left.shape, right.shape[-1]))
        return out


def counted(shapes: tuple[Product, ...]) -> Counter[Product]:
    """How often each shape stands there, the greatest work first."""
    tally = Counter(shapes)
    return Counter(dict(sorted(tally.items(), key=lambda item: -item[1] * operations(item[0]))))
