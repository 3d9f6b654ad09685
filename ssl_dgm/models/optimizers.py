"""Optimisers over stacked parameters: element-wise updates, so that S replicas in one tensor are S optimisers."""

from typing import Any

import torch
from torch.optim import Optimizer


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
