"""Hydra finds this by itself and with it nnDetection our configuration: ``nndet_train 100 -o train=psma25d_nndet``.

``hydra_plugins`` is a namespace package that every distribution may add to, so it has no ``__init__.py``.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

NNDETECTION = "pkg://nndet.conf"
OURS = "pkg://nndet_psma.hosts.nndetection.conf"


class NNDetectionPSMASearchPath(SearchPathPlugin):
    """Appends our folder behind nnDetection's own; every other program's configuration is left alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra whenever it is initialised."""
        if any(element.path == NNDETECTION for element in search_path.get_path()):
            search_path.append(provider="nndet_psma", path=OURS)
