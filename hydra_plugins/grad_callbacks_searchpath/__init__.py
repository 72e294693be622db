"""Hydra finds the configs of grad-callbacks by itself once the package is installed."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class GradCallbacksSearchPath(SearchPathPlugin):
    """Adds the package's config groups behind all others, so that an app's own configs come first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the package's folder."""
        search_path.append(provider="grad-callbacks", path="pkg://grad_callbacks.conf")
