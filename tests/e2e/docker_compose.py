"""Docker Compose, which reads a compose file as an operator's does: the plugin of this machine, or the program built from its Go module.

`docker compose config` needs no Docker engine.
"""

from __future__ import annotations

import shutil
import subprocess

from tests.e2e import tools


def command() -> list[str] | None:
    """Return how to run it here; None if it is not there."""
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return ["docker", "compose"]
    tool = tools.docker_compose()
    return None if tool.missing() else [str(tool.path)]
