"""The entry point of the packaged program: `wok-exporter`, or one of its modules if it is started
like an interpreter.

The exporter starts its second process as `sys.executable -P -m exporter.pipeline.reader_process`.
In a package, the executable is this program.
"""

import os
import runpy
import sys

from exporter.__main__ import main


def give_back_library_path() -> None:
    """Undo the environment of PyInstaller's loader, because a browser that the demo opens has its
    own libraries.

    This program, started as a child, sets it for itself again.
    """
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", "")
    if original:
        os.environ["LD_LIBRARY_PATH"] = original
    else:
        os.environ.pop("LD_LIBRARY_PATH", None)
    os.environ["PYINSTALLER_RESET_ENVIRONMENT"] = "1"


if __name__ == "__main__":
    give_back_library_path()
    if sys.argv[1:3] == ["-P", "-m"]:
        del sys.argv[:3]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        main()
