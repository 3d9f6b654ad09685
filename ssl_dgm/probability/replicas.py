"""Seeds as one program: S modules stacked into one whose parameters, and what else it has of a state, are [S, ...].

One optimiser over stacked tensors is S optimisers, since its updates are element-wise; one backward pass of a sum of
S losses gives every seed its own gradient, since no loss reads another's slice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ssl_dgm.probability.randomness import derived_seed

Module = TypeVar("Module", bound=nn.Module)


def stack(build: Callable[[], Module], seeds: Sequence[int]) -> Module:
    """A module whose state is [S, ...]: `build` called once per seed, initialised by that seed alone.

    Buffers that are not persistent are constants, and stay as they are.
    """
    modules = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(derived_seed(seed, 0, "initialisation"))
            modules.append(build())
    stacked = modules[0]
    others = [module.state_dict(keep_vars=True) for module in modules]
    for name, tensor in others[0].items():
        owner = stacked.get_submodule(name.rpartition(".")[0])
        both = torch.stack([other[name].detach() for other in others])
        if isinstance(tensor, nn.Parameter):
            both = nn.Parameter(both, requires_grad=tensor.requires_grad)
        setattr(owner, name.rpartition(".")[2], both)
    return stacked


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """The state that is no parameter, [S, ...]: running statistics, which a step in training mode updates in place."""
    return {name: t for name, t in module.state_dict(keep_vars=True).items() if not isinstance(t, nn.Parameter)}


def over_seeds(function: Callable[..., Any], parameters: Mapping[str, Tensor], *args: Any, mode: str = "vmap") -> Any:
    """`function(parameters of one seed, its args)` for every seed; tensors in and out have S in front.

    Args:
        parameters: buffers too; what the function writes into a slice in place is written into the stack.
        mode: 'vmap' runs all seeds in batched kernels; 'loop' one after the other, which gives the same numbers and is
            faster on a CPU, where batched matrix products are slower than single ones.
    """
    parameters = dict(parameters)
    if mode == "vmap":
        return torch.vmap(function)(parameters, *args)
    num_seeds = len(next(iter(parameters.values())))
    # The gradient of unbind copies all slices into one tensor, that of squeeze is a view.
    per_seed = {n: (t.squeeze(0),) if num_seeds == 1 else t.unbind(0) for n, t in parameters.items()}
    results = [
        function({name: slices[s] for name, slices in per_seed.items()}, *tree_map(lambda a, s=s: a[s], args))
        for s in range(num_seeds)
    ]
    return tree_map(lambda *outputs: torch.stack(outputs), *results)


def one_seed(state: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """The slices of one seed, as a state of the unstacked module."""
    return {name: tensor[index].clone() for name, tensor in state.items()}


def clip_per_seed(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Scales every seed's own gradient down to a norm of `max_norm`, in place."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in grads]).sum(0).sqrt()  # [S]
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
