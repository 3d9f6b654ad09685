"""Optimisers over stacked parameters: element-wise updates, so that S replicas in one tensor are S optimisers."""

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssl_dgm.config import OptimizerConfig


class Adam(torch.optim.Adam):
    """torch's Adam in its fused form; `weight_decay` is a coupled L2 term, hence a Gaussian prior."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)

    def _cuda_graph_capture_health_check(self) -> None:
        """torch's, only where there can be a graph: without a GPU it looks for one anew at every update."""
        if self.param_groups[0]["params"][0].is_cuda:
            super()._cuda_graph_capture_health_check()


class AdamUncorrected(Optimizer):
    """Adam without bias correction: w -= lr m / (sqrt(v) + eps).

    The rule of the code released with Kingma et al. 2014 (adam.py computes the corrected rate and never uses it); its
    first steps are about 3 times as long as Adam's.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state["m"], state["v"] = torch.zeros_like(w), torch.zeros_like(w)
                g = w.grad + group["weight_decay"] * w
                state["m"].lerp_(g, 1 - beta1)
                state["v"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
                # Not addcdiv's `value`, which could not be a tensor that a schedule changes within a CUDA graph.
                w.sub_((state["m"] * group["lr"]).div_(state["v"].sqrt().add_(group["eps"])))
        return loss


class Adagrad(Optimizer):
    """w -= lr g / (sqrt(sum of all g^2 so far) + eps), the rule of AEVB.

    torch's own reads its count of steps on the CPU at every update, which a CUDA graph cannot.
    """

    def __init__(self, params: Any, lr: float, eps: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state["sum"] = torch.zeros_like(w)
                g = w.grad + group["weight_decay"] * w
                state["sum"].addcmul_(g, g)
                w.sub_((g * group["lr"]).div_(state["sum"].sqrt().add_(group["eps"])))
        return loss


def decay(prior_sd: float | None, num_rows: int) -> float:
    """Of an L2 gradient in the loss of one row: log N(w; 0, sd^2), once for N rows, is w / (N sd^2) in each."""
    return 0.0 if prior_sd is None else 1 / (num_rows * prior_sd**2)


def create(parameters: Any, o: OptimizerConfig, weight_decay: float) -> Optimizer:
    """The optimiser of these settings; `weight_decay` is that of the loss of one row."""
    if o.name == "adagrad":
        return Adagrad(parameters, lr=o.lr, eps=o.eps, weight_decay=weight_decay)
    kind = {"adam": Adam, "adam_uncorrected": AdamUncorrected}[o.name]
    return kind(parameters, lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, weight_decay=weight_decay)


def scheduled(optimizer: Optimizer, o: OptimizerConfig, total: float, epochs: int) -> LambdaLR:
    """The rate's way from `o.lr` to `o.final_lr` over `total` updates, which are `epochs` epochs."""
    end = o.final_lr / o.lr

    def cosine(step: int) -> float:
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    def steps(step: int) -> float:
        return max(end, o.step_factor ** math.floor(step * epochs / total / o.step_epochs + 1e-9))

    return LambdaLR(optimizer, cosine if o.schedule == "cosine" else steps)
