"""Whether the plug-in's configuration file switches it on.

Wok's loader reads the same file first. Wok master takes every text for true there, "False" too, so the file
has to be read again. Python 2.7 and 3.
"""

from __future__ import absolute_import

try:
    from configparser import RawConfigParser  # novm: the name of Python 3
except ImportError:
    from ConfigParser import RawConfigParser  # novm: the name of Python 2

OFF = ("", "0", "false", "no", "none", "off")


def is_switched_on(path):
    """Tell whether `enable` in the section [wok] of this file is anything but a way to say no.

    A file that cannot be read or understood switches the plug-in off: nobody has said that it shall run.
    """
    parser = RawConfigParser()
    try:
        if not parser.read(path):
            return False
        value = parser.get("wok", "enable")
    except Exception:
        return False
    return value.strip().strip("'\"").lower() not in OFF
