"""Runs an installed Wok for real on loopback: serve.py PREFIX PORT PORT_OF_WEBSOCKETS. Python 2.7 and 3.

Replaced is what a test host does not have: PAM and ldap are empty modules, every user may log in with the password `pw`,
nginx is left out, and the socket of the push server lies below PREFIX.
"""
from __future__ import print_function

import os
import sys

prefix, port, websockets_port = sys.argv[1:4]
sys.path.insert(0, prefix + "/lib")
# Relative, because the path of a Unix socket may have 107 bytes.
os.chdir(prefix)

import wok.config as config  # noqa: E402

config.get_pushserver_socket_dir = lambda: "run"
config.config.set("server", "cherrypy_port", port)
config.config.set("server", "websockets_port", websockets_port)
config.config.set("authentication", "method", "anyone")

import wok.proxy  # noqa: E402

for name in ("start_proxy", "terminate_proxy", "check_proxy_config"):
    setattr(wok.proxy, name, lambda *args, **kwargs: None)

import cherrypy  # noqa: E402
import wok.auth as auth  # noqa: E402
import wok.server  # noqa: E402


class Anyone(auth.User):
    """An administrator with the password `pw`. Releases until 2.4.0 call the methods, later ones read the attributes."""

    auth_type = "anyone"

    def __init__(self, username):
        self.name, self.groups, self.role = username, ["wheel"], "admin"

    def get_groups(self):
        return self.groups

    def get_roles(self):
        return {"": self.role}

    def get_user(self):
        return {auth.USER_NAME: self.name, auth.USER_GROUPS: self.groups, auth.USER_ROLES: self.get_roles()}

    @staticmethod
    def authenticate(username, password, service="passwd"):
        return password == "pw"


class Options(object):
    """What wokd's command line would give."""

    cherrypy_port, websockets_port = int(port), websockets_port
    proxy_port = proxy_ssl_port = "18001"
    max_body_size, environment, log_level, session_timeout = "4*1024*1024", "production", "info", 10
    server_root = ssl_cert = ssl_key = ""
    no_proxy, federation, test = True, "off", None
    log_dir = prefix + "/var/log/wok"
    access_log, error_log = log_dir + "/wok-access.log", log_dir + "/wok-error.log"


server = wok.server.Server(Options())
cherrypy.engine.autoreload.unsubscribe()
server.start()
