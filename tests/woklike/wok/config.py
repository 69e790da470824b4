"""Where this Wok keeps its files: beside the package, as a Wok that runs from a source tree."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


class Paths:
    """Directories of Wok itself."""

    def __init__(self) -> None:
        self.state_dir = str(ROOT / "data")
        self.plugins_dir = str(ROOT / "wok" / "plugins")


class PluginPaths(Paths):
    """Directories of one plug-in."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conf_file = str(ROOT / "plugins.d" / f"{name}.conf")


paths = Paths()
