"""Import torchvision also where its wheel was built for CUDA and torch is a CPU build."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from powerctl.errors import InvalidInput


def import_torchvision() -> ModuleType:
    """Import torchvision, whatever torch its wheel was built for.

    On a CPU build of torch the import of a CUDA wheel fails because the operators of its compiled
    extension do not exist. Their schemas are all that the import needs, so they are declared and
    the import is tried again; calling them would fail, but data sets and models do not.

    Raises
    ------
    InvalidInput
        If it is not installed, or not for this torch.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise InvalidInput(
            f"torchvision cannot be imported ({error}): pip install 'powerctl[vision]'; on a "
            "Jetson, `powerctl doctor` says which belongs to its torch"
        ) from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    global _declared  # the library's schemas live only as long as it does
    _declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")


_declared: torch.library.Library | None = None
