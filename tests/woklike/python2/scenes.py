# -*- coding: utf-8 -*-
"""Plays every kind of task on a Wok and prints what came of each: scenes.py LIB, where LIB holds `wok`. Python 2.7 and 3.

LIB is a stand-in or a real Wok without its server; requests are CherryPy's own objects, tasks have their real threads.
If LIB has the plug-in (wok/plugins/tasklog), the same is played without it, with it, and with it broken: every
function and every class of its module `records` is replaced by one that raises, one after the other. The answer is
one JSON object on standard output; tests/test_wok_plugin.py says what must hold of it.
"""
from __future__ import print_function

import importlib
import inspect
import json
import logging
import os
import shutil
import sys
import tempfile
import threading

SECONDS = 10
lib = sys.argv[1]
sys.path.insert(0, lib)
folder = tempfile.mkdtemp(dir=lib)

import wok.config  # noqa: E402

wok.config.paths.state_dir = folder
wok.config.get_pushserver_socket_dir = lambda: folder
os.makedirs(os.path.join(folder, "logs"))

import cherrypy  # noqa: E402
from cherrypy._cprequest import Request  # noqa: E402
from cherrypy.lib import httputil  # noqa: E402
from wok import asynctask, reqlogger  # noqa: E402
from wok.exception import OperationFailed  # noqa: E402
from wok.model.tasks import TaskModel  # noqa: E402

LOG = os.path.join(folder, "user-requests.data")
RECORDS = "wok.plugins.tasklog.records"
said = []
kept = {}


def text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Ear(logging.Handler):
    """Hears what would be in wok-error.log."""

    def emit(self, record):
        said.append(text(record.getMessage()))


class Statement(Exception):
    """Has what Wok's errors have, but is none of them."""

    code, params = "f405", {"secret": "S3cret"}


class Unprintable(Exception):
    """Has no text: Wok's handler fails when it asks for one."""

    def __str__(self):
        raise RuntimeError("no text")

    message = property(__str__)


def failure(**params):
    return OperationFailed("KCHVM0035E", params or {"name": "web01", "err": "no space left"})


# The scenes: what a task's function does with the callback that it gets.


def succeeds(cb, _):
    cb("half of it")
    cb("done", True)


def raises_wok(cb, _):
    raise failure()


def raises_plain(cb, _):
    raise ValueError("no space left")


def raises_os(cb, _):
    raise OSError(28, "No space left on device", "/images/a.img")


def raises_without_text(cb, _):
    raise RuntimeError()


def raises_many_lines(cb, _):
    raise ValueError("a\n\nError in async_task 00000000-0000-0000-0000-000000000000\nb")


def raises_long(cb, _):
    raise ValueError("head " + "x" * 20000 + " tail")


def raises_not_ascii(cb, _):
    raise ValueError(u"\u00e9t\u00e9 \U0001f4a5")


def raises_bytes(cb, _):
    raise ValueError(b"\xff\xfe")


def raises_unprintable(cb, _):
    raise Unprintable()


def raises_what_looks_like_wok(cb, _):
    raise Statement("no such table")


def raises_unencodable(cb, _):
    raise failure(name="web01", err=ValueError("boom"), more=[{"deep": (object, 1)}])


def raises_chained(cb, _):
    try:
        raise KeyError("inner")
    except KeyError:
        raise failure(name="web01", err="outer")


def raises_recursion(cb, _):
    raises_recursion(cb, _)


def exits(cb, _):
    raise SystemExit(3)


def reports_failure(cb, _):
    cb("giving up", False)


def reports_failure_by_keyword(cb, _):
    cb(success=False, message="giving up")


def reports_failure_without_text(cb, _):
    cb("", False)


def reports_failure_twice(cb, _):
    cb("giving up", False)
    cb("  ", False)


def reports_failure_then_raises_wok(cb, _):
    cb("OK", False)
    raise failure()


def reports_failure_then_raises_plain(cb, _):
    cb("giving up", False)
    raise ValueError("no space left")


def reports_failure_then_exits(cb, _):
    cb("giving up", False)
    raise SystemExit(3)


def reports_failure_while_handling(cb, _):
    try:
        raise KeyError("handled by the function")
    except KeyError:
        cb("giving up", False)


def reports_failure_then_success(cb, _):
    cb("not yet", False)
    cb("done", True)


def reports_failure_from_a_thread(cb, _):
    other = threading.Thread(target=lambda: cb("from a thread", False))
    other.start()
    other.join(SECONDS)
    with open(LOG) as log:
        ends = [line for line in log if '"status": 1000' not in line]
    cb("%d logged while the function runs" % len(ends))


def succeeds_then_raises(cb, _):
    cb("done", True)
    raise failure()


def succeeds_twice(cb, _):
    cb("done", True)
    cb("done again", True)


def says_nothing(cb, _):
    cb("thinking")


def keeps_the_callback(cb, _):
    kept["cb"] = cb


def keeps_the_callback_and_fails(cb, _):
    kept["cb"] = cb


def ends_in_its_request(cb, _):
    kept["cb"] = cb


def asks_the_callback(cb, _):
    cb(getattr(cb, "__name__", "?") + type(getattr(cb, "__self__", None)).__name__, True)


def nests(cb, _):
    asynctask.AsyncTask("/inner", succeeds).thread.join(SECONDS)
    asynctask.AsyncTask("/second", says_nothing).thread.join(SECONDS)
    cb("done", True)


def nests_and_fails(cb, _):
    asynctask.AsyncTask("/inner", raises_plain).thread.join(SECONDS)
    raise failure(name="web01", err="inner")


def nests_twice(cb, _):
    asynctask.AsyncTask("/middle", nests).thread.join(SECONDS)
    cb("done", True)


SCENES = (
    succeeds, raises_wok, raises_plain, raises_os, raises_without_text, raises_many_lines, raises_long, raises_not_ascii,
    raises_bytes, raises_unprintable, raises_what_looks_like_wok, raises_unencodable, raises_chained, raises_recursion, exits, reports_failure,
    reports_failure_by_keyword, reports_failure_without_text, reports_failure_twice, reports_failure_then_raises_wok,
    reports_failure_then_raises_plain, reports_failure_then_exits, reports_failure_while_handling,
    reports_failure_then_success, reports_failure_from_a_thread, succeeds_then_raises, succeeds_twice, says_nothing,
    keeps_the_callback, keeps_the_callback_and_fails, ends_in_its_request, asks_the_callback, nests, nests_and_fails, nests_twice,
)  # fmt: skip


class App(object):
    """The application that a request is for."""

    script_name = "/plugins/kimchi"

    class root(object):
        domain, messages, paths = "kimchi", {}, wok.config.paths


def new_request():
    cherrypy.serving.request = request = Request(httputil.Host("127.0.0.1", 1), httputil.Host("127.0.0.1", 2))
    request.app = App()


def request_line():
    params = {"name": "web01", "password": "S3cret"}
    return reqlogger.log_request(
        "KCHVM0001L", params, None, "POST", 202, app="/plugins/kimchi", user="ada", ip="192.0.2.1"
    )


def begin():
    new_request()
    open(LOG, "w").close()
    asynctask.tasks_queue.clear()
    del said[:]


def outcome(name, task, raised, lines):
    """Return what Wok knows of a task, what it said of it, and all lines that were logged."""
    with open(LOG) as log:
        records = [json.loads(line) for line in log]
    own = [line for line in said if line.startswith("tasklog:")]
    others = [line for line in said if not line.startswith("tasklog:")]
    for other in list(asynctask.tasks_queue.values()):
        others = [line.replace(other.id, other.target_uri) for line in others]
    return {
        "name": name,
        "task_id": task.id,
        "timestamp": task.timestamp,
        "state": [task.status, text(task.message), task.app, task.target_uri, raised, task.fn.__name__],
        "said": others,
        "own": own,
        "records": records,
        "request_lines": lines,
    }


def plain_scene(function):
    begin()
    raised = ""
    task = asynctask.AsyncTask("/x/%s" % function.__name__, function, {"opaque": 1})
    task.thread.join(SECONDS)
    if function in (keeps_the_callback, keeps_the_callback_and_fails):
        # As an upload ends: from the thread of another request.
        end = ("done", True) if function is keeps_the_callback else ("broken", False)
        other = threading.Thread(target=lambda: kept.pop("cb")(*end))
        other.start()
        other.join(SECONDS)
    elif function is ends_in_its_request:
        # The thread of the request writes this before its own line.
        kept.pop("cb")("done", True)
    line = request_line()
    try:
        asynctask.save_request_log_id(line, task.id)
    except Exception as error:
        raised = repr(error)
    return outcome(function.__name__, task, raised, [line])


def killed(kill_cb):
    """A task that is killed while it runs: its function ends later, and says nothing."""
    begin()
    go = threading.Event()
    raised = ""
    task = asynctask.AsyncTask("/x/killed", lambda cb, _: go.wait(SECONDS), {}, kill_cb=kill_cb)
    line = request_line()
    try:
        TaskModel(objstore=None).delete(task.id)
    except Exception as error:
        raised = repr(error)
    go.set()
    task.thread.join(SECONDS)
    return outcome("killed" if kill_cb else "not_killable", task, raised, [line])


def request_first():
    """The request's line stands before the end of its task, as that of a slow task."""
    begin()
    go = threading.Event()

    def slow(cb, _):
        go.wait(SECONDS)
        cb("done", True)

    task = asynctask.AsyncTask("/x/slow", slow)
    line = request_line()
    go.set()
    task.thread.join(SECONDS)
    return outcome("request_first", task, "", [line])


def two_tasks_and_two_lines():
    """A request that makes two tasks; a second line of the same request has an id of its own."""
    begin()
    first = asynctask.AsyncTask("/x/first", succeeds)
    first.thread.join(SECONDS)
    task = asynctask.AsyncTask("/x/second", succeeds)
    task.thread.join(SECONDS)
    return outcome("two_tasks_and_two_lines", task, "", [request_line(), request_line()])


def outside_of_requests():
    """A task that no request has made."""
    begin()
    made = []

    def make():
        task = asynctask.AsyncTask("/x/outside", succeeds)
        task.thread.join(SECONDS)
        made.append(task)

    other = threading.Thread(target=make)
    other.start()
    other.join(SECONDS)
    return outcome("outside_of_requests", made[0], "", [request_line()])


def play():
    played = [plain_scene(function) for function in SCENES]
    more = (request_first, two_tasks_and_two_lines, outside_of_requests)
    return played + [killed(lambda: None), killed(None)] + [scene() for scene in more]


pristine = [(cls, dict(vars(cls))) for cls in (asynctask.AsyncTask, reqlogger.RequestRecord)]


def touched():
    """Return what of Wok's classes is not as it was, and put it back."""
    found = []
    for cls, names in pristine:
        for name in set(vars(cls)) | set(names):
            if vars(cls).get(name) is not names.get(name):
                found.append("%s.%s" % (cls.__name__, name))
                setattr(cls, name, names[name]) if name in names else delattr(cls, name)
    return sorted(found)


def fresh():
    """Return the plug-in's module as of a new process."""
    for name in list(sys.modules):
        if name.startswith("wok.plugins.tasklog"):
            del sys.modules[name]
    return importlib.import_module(RECORDS)


def late_start(records):
    """Return the record of the start of a task whose thread begins an hour after it was made."""
    begin()
    task = asynctask.AsyncTask("/x/late", succeeds)
    task.thread.join(SECONDS)
    task.timestamp -= 3600
    open(LOG, "w").close()
    other = threading.Thread(target=lambda: records.begin(task))
    other.start()
    other.join(SECONDS)
    return outcome("late_start", task, "", [])


def parts_of(module):
    return sorted(
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__
    )


def breaking(kind):
    def broken(*args, **kwargs):
        raise kind("broken on purpose")

    return broken


def with_plugin():
    records = fresh()
    answer = {"parts": parts_of(records), "broken": {}, "broken_before": {}}
    answer["installed"] = [records.install(), records.install()]
    answer["with"] = play()
    answer["late"] = late_start(records)
    answer["touched"] = touched()
    answer["removed"] = play()
    for part in answer["parts"]:
        for kind in (RuntimeError, KeyboardInterrupt):
            records = fresh()
            records.install()
            setattr(records, part, breaking(kind))
            answer["broken"]["%s %s" % (part, kind.__name__)] = play()
            touched()
        if part != "install":
            records = fresh()
            setattr(records, part, breaking(RuntimeError))
            told = records.install()
            played = [plain_scene(succeeds), plain_scene(raises_wok)]
            answer["broken_before"][part] = [told, touched(), played]
    answer["unknown"] = unknown()
    return answer


def unknown():
    """Return what the plug-in says of, and does to, a Wok whose methods have other arguments."""
    others = (
        (asynctask.AsyncTask, "_run_helper", lambda self, opaque, cb, more: None),
        (asynctask.AsyncTask, "_log", lambda self, code, status, *exception: None),
        (asynctask.AsyncTask, "kill", lambda: None),
        (reqlogger.RequestRecord, "__init__", lambda self, message, error, **kwargs: None),
        (reqlogger.RequestRecord, "log", None),
    )
    found = []
    for cls, name, other in others:
        mine = vars(cls)[name]
        setattr(cls, name, other)
        told = fresh().install()
        is_mine = vars(cls)[name] is other
        setattr(cls, name, mine)
        found.append([told, is_mine, touched()])
    return found


def main():
    cherrypy.log.error_log.addHandler(Ear())
    cherrypy.log.screen = False
    if hasattr(reqlogger, "BackgroundTask"):
        # It would clean a directory of downloads for ever.
        reqlogger.BackgroundTask = lambda *args: threading.Thread()
    reqlogger.RequestLogger()
    answer = {"without": play()}
    if os.path.isdir(os.path.join(lib, "wok", "plugins", "tasklog")):
        answer.update(with_plugin())
    json.dump(answer, sys.stdout)
    sys.stdout.flush()


try:
    main()
finally:
    shutil.rmtree(folder, ignore_errors=True)
# Not by the usual way: CherryPy's threads and those of a broken task must not hold it up.
os._exit(0)
