"""A plug-in of Wok that logs the start and the end of every task with its id. Python 2.7 and 3.

Wok's loader makes one `Tasklog` when it starts, or when somebody enables the plug-in in Wok's settings. The
object serves no URL. All work is in `records`; this file only decides whether it is to begin.
"""

from __future__ import absolute_import

import cherrypy
from wok.config import PluginPaths

from .i18n import messages
from .switch import is_switched_on


class Tasklog(object):
    """What Wok mounts as /plugins/tasklog."""

    extends = None

    def __init__(self, wok_options=None):
        self.domain = "tasklog"
        self.messages = messages
        self.depends = []
        self.paths = PluginPaths("tasklog")
        cherrypy.log.error_log.error("tasklog: " + started(self.paths.conf_file))


def started(conf_file):
    """Begin, unless the configuration says no; return the sentence for wok-error.log. Never raises."""
    try:
        if not is_switched_on(conf_file):
            return "disabled in %s: Wok logs tasks as it does without this plug-in" % conf_file
        # Here, because an unknown Wok may lack what it imports.
        from .records import install

        return install()
    except BaseException as error:
        return "not started (%s): Wok logs tasks as it does without this plug-in" % type(error).__name__
