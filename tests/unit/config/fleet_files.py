"""Fleet files in a temporary folder, and what loading them says."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tritonfleet.config import ConfigError, FleetSpec, load_fleet

SMALLEST = "version: 1\nname: demo\npools: {main: {model_repository: models}}\n"
POOL = "version: 1\nname: demo\npools:\n  main:\n    model_repository: models\n"


class Folder:
    """A folder with two models in ``models``, where fleet files can be tried."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for model in ("digits", "echo"):
            (path / "models" / model).mkdir(parents=True)

    def load(self, text: str, environ: Mapping[str, str] | None = None) -> FleetSpec:
        file = self.path / "fleet.yaml"
        file.write_text(text)
        return load_fleet(file, environ or {})

    def error(self, text: str, environ: Mapping[str, str] | None = None) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ)
        return caught.value

    def says(self, text: str, environ: Mapping[str, str] | None = None) -> str:
        """The whole error text, with the folder shown as ``DIR``."""
        return str(self.error(text, environ)).replace(str(self.path), "DIR")
