"""Optimisers over stacked parameters: element-wise updates, so that S replicas in one tensor are S optimisers."""

from typing import Any

import torch
from torch.optim import Optimizer


class Adam(torch.optim.Adam):
    """torch's Adam in its fused form; `weight_decay` is a coupled L2 term, hence a Gaussian prior."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)


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
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            m = [self.state[p]["m"] for p in params]
            v = [self.state[p]["v"] for p in params]
            beta1, beta2 = group["betas"]
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            torch._foreach_lerp_(m, grads, 1 - beta1)
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
            scale = torch._foreach_sqrt(v)
            torch._foreach_add_(scale, group["eps"])
            torch._foreach_addcdiv_(params, m, scale, -group["lr"])
        return loss
