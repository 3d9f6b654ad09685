"""Semi-supervised learning with deep generative models, reproduced.

import ssl_dgm
fitted = ssl_dgm.fit("model=m2", "data=digits", "labels=100")
fitted.predict(x)
ssl_dgm.load("runs/m2-digits-100-short-...", seed=0).sample(10)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_dgm.api import Fitted, fit, load
    from ssl_dgm.config import Stopped, UserError

__version__ = "0.1.0"
__all__ = ["Fitted", "Stopped", "UserError", "fit", "load"]


def __getattr__(name: str) -> Any:
    # Not at the top: the table's and the runs' commands must not wait for torch.
    if name in ("Stopped", "UserError"):
        from ssl_dgm import config

        return getattr(config, name)
    if name in __all__:
        from ssl_dgm import api

        return getattr(api, name)
    raise AttributeError(f"module 'ssl_dgm' has no attribute '{name}'")
