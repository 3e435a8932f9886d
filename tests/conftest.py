"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a red build must mean a changed project, not another draw.
settings.register_profile("neuflow", derandomize=True, deadline=None)
settings.load_profile("neuflow")
