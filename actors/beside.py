"""The workflows that load the same files, on one set of weights: the pool knows them as one model, and each request names its workflow."""

from __future__ import annotations

import pkgutil
from typing import Any

from .values import Lora, ModelFiles, Receipt


class Workflows:
    """What a device holds for one set of files.

    Args:
        path: `module:class` of the family's model.
        identity, files, settings: of the workflow that asks first.

    Raises:
        ModelError: as the family's class.
    """

    def __init__(self, path: str, identity: str, files: ModelFiles, settings: Any):
        self.first = pkgutil.resolve_name(path)(identity, files, settings)
        self.models = {identity: self.first}

    def prepare(self, identity: str, settings: Any, loras: tuple[Lora, ...]) -> None:
        """Find now what every take of a workflow would meet. Raises ModelError where it or a LoRA does not fit."""
        self._model(identity, settings).prepare(loras)

    def generate(self, requests: list[Any]) -> tuple[list[Receipt], list[Any]]:
        """As the family's class. All requests of a call are of one workflow."""
        return self._model(requests[0].workflow, requests[0].settings).generate(requests)

    def _model(self, identity: str, settings: Any) -> Any:
        if identity not in self.models:
            self.models[identity] = self.first.again(identity, settings)
        return self.models[identity]
