"""Functions compiled by torch where that works, and run as they are where it does not."""

from collections.abc import Callable
from typing import Any

import torch


class Compiled:
    """`function` through `torch.compile`; without a working compiler it runs as it is, and a sentence says so once.

    The first call takes the compiler's time: about 20 s for M2 on two cores.
    """

    def __init__(self, function: Callable[..., Any], say: Callable[[str], None]) -> None:
        self.plain, self.say = function, say
        self.run: Callable[..., Any] = torch.compile(function, dynamic=False)
        self.works = False

    def __call__(self, *args: Any) -> Any:
        if self.works:
            return self.run(*args)
        # Whatever goes wrong in the first call, the compiler or what it made: the plain function is the judge.
        try:
            results = self.run(*args)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.say(f"torch.compile does not work here ({reason}); going on without, as with trainer.compile=never")
            self.run = self.plain
            results = self.plain(*args)
        self.works = True
        return results
