"""Federated learning over power-aware NVIDIA Jetsons."""

from pathlib import Path

_here = Path(__file__).parent
if not (_here / "client").is_dir():  # unpacked from a FAB, which carries folders but no links
    __path__.append(str(_here.parent))
