"""M2 on pixels, and stage 2 of M1+M2, as others would write them: plain PyTorch, and Pyro."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.data.inputs import Pixels, Posteriors
from ssl_dgm.training.fit import find_device, keep_freed_memory

from .cases import LABELLED, LABELS, UNLABELLED, Case, rows
from .race import Turns

CLASSES, LATENTS, HIDDEN = 10, 50, 500
LEARNING_RATE = 3e-4


class HandWritten(nn.Module):
    """The model as a careful author writes it for one seed: y enumerated by broadcasting, the KL in closed form."""

    def __init__(self, x_dim: int, gaussian: bool) -> None:
        super().__init__()
        self.class_hidden, self.class_logits = nn.Linear(x_dim, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.encoder_x, self.encoder_y = nn.Linear(x_dim, HIDDEN), nn.Linear(CLASSES, HIDDEN, bias=False)
        self.encoder_mean, self.encoder_log_var = nn.Linear(HIDDEN, LATENTS), nn.Linear(HIDDEN, LATENTS)
        self.decoder_z, self.decoder_y = nn.Linear(LATENTS, HIDDEN), nn.Linear(CLASSES, HIDDEN, bias=False)
        self.x_mean = nn.Linear(HIDDEN, x_dim)  # logits of pixels
        self.x_log_var = nn.Linear(HIDDEN, x_dim) if gaussian else None

    def log_q_y(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.class_logits(F.softplus(self.class_hidden(x))), -1)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = F.softplus(self.encoder_x(x) + self.encoder_y(y))
        return self.encoder_mean(h), self.encoder_log_var(h)

    def decode(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        h = F.softplus(self.decoder_z(z) + self.decoder_y(y))
        return self.x_mean(h), None if self.x_log_var is None else self.x_log_var(h)

    def bound_given_y(self, x: Tensor, y: Tensor) -> Tensor:
        mean, log_var = self.encode(x, y)
        x_mean, x_log_var = self.decode(y, mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))
        if x_log_var is None:
            log_px = -F.binary_cross_entropy_with_logits(x_mean, x.expand_as(x_mean), reduction="none").sum(-1)
        else:
            squares = (x - x_mean).square() * torch.exp(-x_log_var)
            log_px = -0.5 * (math.log(2 * math.pi) + x_log_var + squares).sum(-1)
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)
        return log_px - kl - math.log(CLASSES)

    def loss(self, x_labelled: Tensor, y_labelled: Tensor, x_unlabelled: Tensor, r: float) -> Tensor:
        log_q = self.log_q_y(x_unlabelled).T  # [K, B]
        bound = self.bound_given_y(x_unlabelled, torch.eye(CLASSES, device=log_q.device).unsqueeze(1))
        unlabelled = (log_q.exp() * (bound - log_q)).sum(0).mean()
        classification = (y_labelled * self.log_q_y(x_labelled)).sum(-1).mean()
        return -(unlabelled + r * self.bound_given_y(x_labelled, y_labelled).mean() + 0.1 * classification)


class InPyro:
    """The same networks as Pyro programs, y enumerated in parallel by TraceEnum_ELBO; its KL is a Monte Carlo one."""

    def __init__(self, networks: HandWritten) -> None:
        import pyro
        import pyro.distributions as dist
        from pyro.infer import Trace_ELBO, TraceEnum_ELBO

        pyro.enable_validation(False)
        self.pyro, self.dist, self.networks = pyro, dist, networks
        self.enumerated, self.given = TraceEnum_ELBO(max_plate_nesting=1), Trace_ELBO(max_plate_nesting=1)

    def model(self, x: Tensor, y: Tensor | None) -> None:
        dist, sample = self.dist, self.pyro.sample
        with self.pyro.plate("rows", len(x)):
            y = sample("y", dist.OneHotCategorical(x.new_ones(CLASSES) / CLASSES), obs=y)
            z = sample("z", dist.Normal(x.new_zeros(LATENTS), x.new_ones(LATENTS)).to_event(1))
            mean, log_var = self.networks.decode(y, z)  # type: ignore[arg-type]
            density = dist.Bernoulli(logits=mean) if log_var is None else dist.Normal(mean, (0.5 * log_var).exp())
            sample("x", density.to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None) -> None:
        dist, sample = self.dist, self.pyro.sample
        with self.pyro.plate("rows", len(x)):
            if y is None:
                q_y = dist.OneHotCategorical(logits=self.networks.log_q_y(x))
                y = sample("y", q_y, infer={"enumerate": "parallel"})
            mean, log_var = self.networks.encode(x, y)  # type: ignore[arg-type]
            sample("z", dist.Normal(mean, (0.5 * log_var).exp()).to_event(1))

    def loss(self, x_labelled: Tensor, y_labelled: Tensor, x_unlabelled: Tensor, r: float) -> Tensor:
        unlabelled = self.enumerated.differentiable_loss(self.model, self.guide, x_unlabelled, None)
        labelled = self.given.differentiable_loss(self.model, self.guide, x_labelled, y_labelled)
        classification = (y_labelled * self.networks.log_q_y(x_labelled)).sum(-1).mean()
        return unlabelled / len(x_unlabelled) + r * labelled / len(x_labelled) - 0.1 * classification


def hand_written(case: Case, turns: Turns, in_pyro: bool = False, tuned: bool = False) -> None:
    """The usual training loop around either.

    Args:
        tuned: with two things that ssl_dgm does and few authors know: Adam's fused form, and freed memory kept.
    """
    device = find_device(case.device)
    if tuned:
        keep_freed_memory()
    torch.manual_seed(0)
    inputs, targets = rows(case)
    one_hot, gaussian = F.one_hot(targets, CLASSES).float().to(device), isinstance(inputs, Posteriors)
    networks = HandWritten(inputs.x_dim, gaussian).to(device)
    model = InPyro(networks) if in_pyro else networks
    inputs = inputs.to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16")
    decay = 1 / case.rows
    optimizer = torch.optim.Adam(networks.parameters(), lr=LEARNING_RATE, weight_decay=decay, fused=tuned or None)
    # The first LABELS rows are its labelled ones: which they are makes no difference to the time.
    r = LABELS / (case.rows - LABELS)

    def draw(where: Tensor) -> Tensor:
        if isinstance(inputs, Pixels):
            return torch.bernoulli(inputs.images[where].float() / 255)
        assert isinstance(inputs, Posteriors)
        mean = inputs.means[where]
        return mean + inputs.sds[where] * torch.randn_like(mean)

    while True:
        labelled = torch.randint(0, LABELS, (LABELLED,), device=device)
        unlabelled = torch.randint(LABELS, case.rows, (UNLABELLED,), device=device)
        with autocast:
            loss = model.loss(draw(labelled), one_hot[labelled], draw(unlabelled), r)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        turns()
