"""Normalisation against torch's, whatever dimensions lead, and its running statistics as the state of a seed."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssl_dgm.probability.norms import BatchNorm, GroupNorm
from ssl_dgm.probability.replicas import buffers, over_seeds, stack

# Leading dimensions of a dense layer's values: rows; classes and rows, in one case as many rows as channels; draws too.
leads = pytest.mark.parametrize("lead", [(6,), (3, 5), (3, 4), (2, 3, 5)])


def roughened(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@leads
def test_batch_norm_is_torch_s_on_rows_in_training_and_after_it(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    own, reference = roughened(BatchNorm(4)), nn.BatchNorm1d(4)
    reference.load_state_dict(own.state_dict(), strict=False)
    for _ in range(3):
        x = 2 * torch.randn(*lead, 4) + 1
        torch.testing.assert_close(own(x), reference(x.flatten(0, -2)).view_as(x))
    for statistic in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(own, statistic), getattr(reference, statistic))
    before = own.state_dict()
    torch.testing.assert_close(own.eval()(x), reference.eval()(x.flatten(0, -2)).view_as(x))
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())


def test_batch_norm_of_maps_is_torch_s() -> None:
    torch.manual_seed(0)
    own, reference, x = roughened(BatchNorm(4, dim=-3)), nn.BatchNorm2d(4), torch.randn(6, 4, 3, 2)
    reference.load_state_dict(own.state_dict(), strict=False)
    for side_by_side in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(own(side_by_side), reference(x))
    torch.testing.assert_close(own.running_var, reference.running_var)


@leads
def test_group_norm_sees_one_row_alone(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    own, x = roughened(GroupNorm(48)), torch.randn(*lead, 48)
    assert own.groups == 3
    reference = nn.GroupNorm(3, 48)
    reference.load_state_dict(own.state_dict())
    torch.testing.assert_close(own(x), reference(x.flatten(0, -2)).view_as(x))
    torch.testing.assert_close(own(x)[1], own(x[1]))
    maps = torch.randn(5, 48, 3, 2)
    torch.testing.assert_close(GroupNorm(48, dim=-3)(maps), nn.GroupNorm(3, 48)(maps))


@pytest.mark.parametrize(("channels", "groups"), [(100, 5), (16, 1), (7, 1), (500, 25), (64, 4)])
def test_groups_divide_the_channels_and_have_sixteen_or_more(channels: int, groups: int) -> None:
    assert GroupNorm(channels).groups == groups
    assert GroupNorm(channels)(torch.randn(2, channels)).std() > 0.5


# --- As the state of seeds

SEEDS = (4, 0, 7)


def stacked(seeds: tuple[int, ...] = SEEDS) -> nn.Module:
    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Linear(4, 2), BatchNorm(2))
        net.register_buffer("constant", torch.ones(()), persistent=False)
        return net

    return stack(build, seeds)


def step(net: nn.Module, mode: str, x: Tensor) -> Tensor:
    """The loss of every seed, whose gradients are left in the parameters."""

    def one(state: dict[str, Tensor], rows: Tensor) -> Tensor:
        return functional_call(net, state, (rows,)).pow(3).mean()

    loss = over_seeds(one, {**dict(net.named_parameters()), **buffers(net)}, x, mode=mode)
    loss.sum().backward()
    return loss.detach()


def test_stacking_puts_the_seeds_before_the_state_and_leaves_constants_alone() -> None:
    net = stacked()
    assert {n: b.shape for n, b in buffers(net).items()} == {
        "1.running_mean": (3, 4), "1.running_var": (3, 4), "3.running_mean": (3, 2), "3.running_var": (3, 2),
    }  # fmt: skip
    assert net.constant.shape == ()
    assert not any(isinstance(buffer, nn.Parameter) for buffer in buffers(net).values())


def test_vmap_is_the_loop_state_included() -> None:
    x = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0))
    batched, looped = stacked(), stacked()
    for _ in range(2):
        torch.testing.assert_close(step(batched, "vmap", x), step(looped, "loop", x))
    torch.testing.assert_close(batched.state_dict(), looped.state_dict())
    for name, parameter in batched.named_parameters():
        # What a BatchNorm subtracts anyway has no gradient but rounding.
        torch.testing.assert_close(parameter.grad, looped.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
    assert all((a != b).any() for a, b in zip(buffers(batched).values(), buffers(stacked()).values(), strict=True))


@pytest.mark.parametrize("mode", ["vmap", "loop"])
def test_a_seed_s_state_alone_is_that_in_a_group(mode: str) -> None:
    x = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0))
    together, alone = stacked(), stacked(SEEDS[1:2])
    step(together, mode, x), step(alone, mode, x[1:2])
    for name, value in buffers(alone).items():
        torch.testing.assert_close(value[0], buffers(together)[name][1])


def test_statistics_stay_in_float32_where_layers_run_in_less() -> None:
    own, x = BatchNorm(4), torch.randn(64, 4).bfloat16()
    shortened = {name: parameter.bfloat16() for name, parameter in own.named_parameters()}
    assert functional_call(own, shortened, (x,)).dtype == torch.bfloat16
    torch.testing.assert_close(own.running_mean, 0.1 * x.float().mean(0))
