"""In which format products of matrices are made: what the budget asks for, as far as the device has it."""

import contextlib
from collections.abc import Iterator

import torch

from ssl_dgm.config import Config, UserError

LIGHTNING = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


def check(config: Config, device: torch.device) -> None:
    """Refuses formats that no such device has.

    Raises:
        UserError: for tf32 elsewhere than on a GPU.
    """
    for prefix, stage in (("", config), ("m1.", config.m1)):
        if stage is not None and stage.budget.precision == "tf32" and device.type != "cuda":
            raise UserError(f"{prefix}budget.precision=tf32 is a format of GPUs, not of {device}; use 32 or bf16")


def of_products(wished: str, device: torch.device) -> str:
    """`budget.precision` on this device: 32, bf16 or tf32.

    It is 32 for bf16 on a CPU without bfloat16 products (x86 before AVX-512), where torch would make them one number at
    a time: updates of M1 were nine times slower than in float32, of which bfloat16 is a rounding.
    """
    return "32" if wished == "bf16" and device.type == "cpu" and not has_bfloat16() else wished


def has_bfloat16() -> bool:
    """Whether the CPU's products of bfloat16 matrices are those of oneDNN."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def products(wished: str, device: torch.device) -> Iterator[str]:
    """Lightning's name of the format; within, a GPU's float32 products are shortened for tf32 and whole otherwise."""
    format_ = of_products(wished, device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if format_ == "tf32" else "highest")
    try:
        yield LIGHTNING[format_]
    finally:
        torch.set_float32_matmul_precision(before)
