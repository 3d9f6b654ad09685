"""Randomness as a function of (seed, epoch, purpose).

A draw depends on nothing else: not on which other seeds run beside it, nor on how often a run was stopped. That makes
a seed alone equal to the same seed in a group, and a resumed run equal to an uninterrupted one.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derived_seed(seed: int, epoch: int, purpose: str) -> int:
    """A generator seed in [0, 2^32), the range that torch's CPU generator uses."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()[:4])


class Streams:
    """One generator per seed for one purpose; every draw has the seeds in front."""

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu") -> None:
        self.seeds, self.purpose = tuple(seeds), purpose
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device) for _ in seeds]
        self.begin(0)

    def begin(self, epoch: int) -> "Streams":
        """Puts every generator to the start of an epoch."""
        for seed, generator in zip(self.seeds, self.generators):
            generator.manual_seed(derived_seed(seed, epoch, self.purpose))
        return self

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal [S, *shape]."""
        out = torch.empty(len(self.seeds), *shape, device=self.device)
        for row, generator in zip(out, self.generators):
            row.normal_(generator=generator)
        return out

    def bytes_below(self, stop: int, shape: Sequence[int]) -> Tensor:
        """Uniform integers 0 .. stop - 1 as uint8, [S, *shape]."""
        out = torch.empty(len(self.seeds), *shape, device=self.device, dtype=torch.uint8)
        for row, generator in zip(out, self.generators):
            row.random_(0, stop, generator=generator)
        return out

    def permutations(self, length: int, times: int = 1) -> Tensor:
        """`times` independent permutations of 0 .. length - 1, one after the other, [S, times * length]."""
        dealt = torch.empty(len(self.seeds), times, length, dtype=torch.long, device=self.device)
        for rows, generator in zip(dealt, self.generators):
            for row in rows:
                torch.randperm(length, generator=generator, out=row)
        return dealt.flatten(1)
