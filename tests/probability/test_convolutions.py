"""Convolutions in the place of a Linear: their sizes, which pixel is which, and that rows stay rows."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.probability.convolutions import KINDS, Image, Picture, Trunk, decoder, encoder, fits, sizes
from ssl_dgm.probability.networks import Architecture, FeatureNetwork, Network, Shared

GREY, COLOUR, SMALL = (1, 28, 28), (3, 32, 32), (2, 12, 16)
kinds = pytest.mark.parametrize("kind", KINDS)
every = pytest.mark.parametrize(("kind", "image"), [(kind, image) for kind in KINDS for image in (GREY, COLOUR, SMALL)])


def rows(image: Image, *lead: int) -> Tensor:
    return torch.rand(*lead, math.prod(image), generator=torch.Generator().manual_seed(1))


def planes(x: Tensor, image: Image) -> Tensor:
    """Rows [N, D] as [N, C, H, W], by an index for each."""
    c, h, w = image
    index = [[[(i * w + j) * c + k for j in range(w)] for i in range(h)] for k in range(c)]
    return x[:, torch.tensor(index)]


def trunk(kind: str, image: Image, size: int = 7, normed: str = "batch", classifier: bool = False) -> Trunk:
    torch.manual_seed(0)
    return Trunk(image, kind, size, F.leaky_relu, normed, True, classifier)


def picture(kind: str, image: Image, heads: tuple[int, ...] = (1, 1), normed: str = "batch") -> Picture:
    torch.manual_seed(0)
    sized = {f"head {i}": number * math.prod(image) for i, number in enumerate(heads)}
    return Picture(image, kind, hidden_units(kind, image), sized, torch.tanh, normed)


def hidden_units(kind: str, image: Image) -> int:
    """What a picture is made of: Ojha's first maps, or so many features."""
    return math.prod(decoder(kind, image, 1)[0]) if kind == "conv" else 5


# --- Sizes


def test_figueroa_s_maps_are_those_of_his_tables_and_come_down_to_one() -> None:
    for image, expected, last in ((GREY, [24, 20, 10, 5], 5), (COLOUR, [28, 24, 12, 6], 6)):
        maps = sizes(image, encoder("figueroa", image))
        assert maps == [(width, size, size) for width, size in zip((16, 32, 64, 128), expected, strict=True)]
        start, layers = decoder("figueroa", image, 3)
        assert start == (128, last, last)
        widths = [(layer.channels, layer.kernel, layer.stride) for layer in layers]
        assert widths == [(64, 4, 2), (32, 4, 2), (16, 5, 1), (3, 5, 1)]


def test_ojha_s_maps_are_those_of_the_notebooks() -> None:
    assert sizes(GREY, encoder("conv", GREY)) == [(64, 28, 28), (64, 28, 28), (64, 14, 14)]
    assert sizes(COLOUR, encoder("conv", COLOUR)) == [(128, 32, 32), (64, 16, 16), (32, 8, 8)]
    assert sizes(GREY, encoder("conv", GREY, classifier=True)) == [(32, 14, 14), (64, 7, 7), (64, 7, 7)]
    for image, first, widths in (
        (GREY, (64, 14, 14), [(64, 3, 1), (64, 3, 1), (64, 3, 2), (1, 1, 1)]),
        (COLOUR, (32, 8, 8), [(128, 3, 1), (64, 3, 2), (32, 3, 2), (3, 1, 1)]),
    ):
        maps, layers = decoder("conv", image, image[0])
        assert maps == first and [(layer.channels, layer.kernel, layer.stride) for layer in layers] == widths


@every
def test_images_become_vectors_and_vectors_images_of_the_same_size(kind: str, image: Image) -> None:
    assert trunk(kind, image)(rows(image, 2)).shape == (2, 7)
    outputs = picture(kind, image, heads=(1, 3))(torch.randn(2, hidden_units(kind, image)))
    d = math.prod(image)
    assert {name: out.shape for name, out in outputs.items()} == {"head 0": (2, d), "head 1": (2, 3 * d)}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@kinds
def test_which_images_fit_is_known_without_a_network(kind: str) -> None:
    for image in [(1, 8, 8), (1, 27, 27), (3, 30, 30), (1, 30, 30), (3, 12, 12), (1, 28, 20), (1, 1, 784)]:
        try:
            (out,) = picture(kind, image, (1,))(torch.randn(2, hidden_units(kind, image))).values()
            made = out.shape == (2, math.prod(image)) and trunk(kind, image)(rows(image, 2)).shape == (2, 7)
        except RuntimeError:
            made = False
        assert fits(kind, image) == made, image


# --- Which pixel is which


@kinds
def test_an_encoder_is_torch_s_convolutions_of_the_image(kind: str) -> None:
    own, x = trunk(kind, SMALL), rows(SMALL, 4)
    maps = planes(x, SMALL)
    for convolution in own.convolutions:
        maps = F.leaky_relu(F.batch_norm(convolution(maps), None, None, training=True))
    # His last layer, a convolution of full size.
    kernel = own.linear.weight.view(7, *maps.shape[2:], maps.shape[1]).permute(0, 3, 1, 2)
    expected = F.conv2d(maps, kernel, own.linear.bias)
    assert expected.shape == (4, 7, 1, 1)
    torch.testing.assert_close(own(x), expected.flatten(1), rtol=1e-4, atol=1e-5)


@kinds
def test_a_decoder_is_torch_s_transposed_convolutions_to_the_image(kind: str) -> None:
    own, h = picture(kind, SMALL, heads=(1, 2)), torch.randn(4, hidden_units(kind, SMALL))
    channels, height, width = own.maps
    maps = own.linear(h).view(4, height, width, channels).permute(0, 3, 1, 2)
    for convolution in own.convolutions:
        normed = F.batch_norm(maps, None, None, training=True).relu() if kind == "figueroa" else maps.tanh()
        maps = convolution(normed)
    outputs = own(h)
    c, h_, w = SMALL
    # Of every pixel its channels, of every channel the parameters: one of the first head, two of the second.
    per_channel = maps.view(4, c, 3, h_, w)
    torch.testing.assert_close(planes(outputs["head 0"], SMALL), per_channel[:, :, 0], rtol=1e-4, atol=1e-5)
    for i in range(2):
        second = planes(outputs["head 1"].unflatten(1, (-1, 2))[..., i], SMALL)
        torch.testing.assert_close(second, per_channel[:, :, 1 + i], rtol=1e-4, atol=1e-5)


# --- Rows stay rows


@kinds
def test_rows_are_independent_whatever_leads(kind: str) -> None:
    encode, decode = trunk(kind, SMALL), picture(kind, SMALL)
    x, h = rows(SMALL, 2, 3), torch.randn(2, 3, hidden_units(kind, SMALL))
    encode(x), decode(h)
    encode.eval(), decode.eval()
    torch.testing.assert_close(encode(x)[1, 2], encode(x[1, 2]))
    torch.testing.assert_close(decode(h)["head 1"][1, 2], decode(h[1, 2])["head 1"])


@pytest.mark.parametrize("normed", ["batch", "group", "none"])
@kinds
def test_a_norm_follows_every_layer_where_the_paper_has_it(kind: str, normed: str) -> None:
    def normalised(module: nn.Module) -> int:
        return sum(not isinstance(layer, nn.Identity) for layer in module.norms)

    expected = {"encoder": 4, "classifier": 4, "decoder": 4} if kind == "figueroa" else {"encoder": 3}
    found = {
        "encoder": normalised(trunk(kind, SMALL, normed=normed)),
        "classifier": normalised(trunk(kind, SMALL, normed=normed, classifier=True)),
        "decoder": normalised(picture(kind, SMALL, normed=normed)),
    }
    assert {name: number for name, number in found.items() if number} == (expected if normed != "none" else {})


# --- In a network


def architecture(kind: str, **settings: object) -> Architecture:
    return Architecture((6, 5), "tanh", kind=kind, images={"x": SMALL}, features=4, **settings)  # type: ignore[arg-type]


@kinds
def test_an_image_meets_other_parents_as_a_vector_does(kind: str) -> None:
    torch.manual_seed(0)
    d = math.prod(SMALL)
    network = Network({"x": d, "y": 3}, {"mean": 2}, architecture(kind)).eval()
    x, y = rows(SMALL, 4), torch.eye(3)[:, None]
    out = network({"x": x, "y": y})["mean"]
    assert out.shape == (3, 4, 2)
    torch.testing.assert_close(network({"x": x, "y": torch.eye(3)[[1] * 4]})["mean"], out[1])
    index = torch.tensor([3, 0, 0, 2])
    shared = network({"x": Shared(x, index), "y": torch.eye(3)[[1] * 4]})["mean"]
    torch.testing.assert_close(shared, out[1][index])


@kinds
def test_the_heads_of_an_image_are_a_picture_and_every_layer_learns(kind: str) -> None:
    torch.manual_seed(0)
    d = math.prod(SMALL)
    decode = Network({"z": 3, "y": 2}, {"mean": d, "log_var": d}, architecture(kind), image=SMALL, norm="group")
    encode = Network({"x": d}, {"logits": 2}, architecture(kind, norm="batch"), norm="batch", classifier=True)
    out = decode({"z": torch.randn(2, 1, 4, 3), "y": torch.eye(2)[:, None]})
    assert {name: value.shape for name, value in out.items()} == {"mean": (2, 2, 4, d), "log_var": (2, 2, 4, d)}
    (out["mean"].square().sum() + out["log_var"].sin().sum()).backward()
    encode({"x": rows(SMALL, 8)})["logits"].square().sum().backward()
    for network in (decode, encode):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("kind", ["mlp", *KINDS])
def test_features_are_a_last_hidden_layer(kind: str) -> None:
    torch.manual_seed(0)
    images = {} if kind == "mlp" else {"x": SMALL}
    settings = Architecture((6,), "tanh", kind=kind, images=images, norm="batch")
    g = FeatureNetwork({"x": math.prod(SMALL)}, 9, settings, norm="batch")
    h = g({"x": rows(SMALL, 50)})
    assert h.shape == (50, 9)
    # It has the norm and the non-linearity of one: tanh of what has mean 0 and variance 1.
    torch.testing.assert_close(h.atanh().mean(0), torch.zeros(9), atol=1e-4, rtol=0)
    torch.testing.assert_close(h.atanh().std(0), torch.ones(9), atol=0.05, rtol=0)
    assert len(g.hidden) == (kind == "mlp")


@kinds
def test_a_decoder_starts_with_a_linear_map_of_the_size_of_the_features_or_of_the_first_maps(kind: str) -> None:
    network = Network({"z": 3}, {"logits": math.prod(SMALL)}, architecture(kind), image=SMALL)
    z = torch.randn(2, 3)
    assert network.inputs["z"].out_features == (4 if kind == "figueroa" else math.prod(decoder(kind, SMALL, 1)[0]))
    assert not network.hidden
    torch.testing.assert_close(network.features({"z": z}), network.inputs["z"](z))


@pytest.mark.parametrize("init", ["torch", "glorot"])
def test_convolutions_are_initialised_like_linear_layers(init: str) -> None:
    torch.manual_seed(0)
    network = Network({"z": 3}, {"logits": 784}, architecture("conv", init=init, init_sd=0.003), image=GREY)
    *inner, last = network.heads.convolutions
    expected = {"torch": math.sqrt(1 / (64 * 9) / 3), "glorot": math.sqrt(2 / (2 * 64 * 9))}
    for layer in inner:
        assert layer.weight.std().item() == pytest.approx(expected[init], rel=0.05)
        assert bool(layer.bias.any()) == (init == "torch")
    # Its weight is [64 channels of the maps, 1 of the image, 1, 1].
    sd = {"torch": 1 / math.sqrt(3), "glorot": 0.003}
    assert last.weight.std().item() == pytest.approx(sd[init], rel=0.1)
