"""Records of the start and the end of every task, with the ids of the task and of its request.

Wok starts a task in a thread of its own and logs one line when it ends: status 200 or 400, without any id.
`install` wraps five methods of Wok's classes, so that this is logged instead (docs/tasklog.md of wok-exporter):

    1000  in the task's thread, before its function
    1001  the end of a task that succeeded, or that returned and can never report anything
    1002  the end of a task that failed or was killed, with the reason

The id of the request's own line does not exist yet when its task starts. So it is chosen here, when the first
task of a request is made, kept on CherryPy's request, and given to the first line that its thread writes.

**Whatever breaks in here must not reach Wok.** Each wrapper calls functions of this module in a `try` and goes on
with Wok's own method if they fail. A wrapper never writes Wok's line beside ours: `write` does nothing that
can fail after the line. Nothing of this module stands between a task's function and Wok's handler of its
exceptions, so that the tracebacks in wok-error.log stay the same.

Python 2.7 and 3. In 2.7 a bare `raise` raises the exception that was handled last, so no other `try` may run
before it.
"""

from __future__ import absolute_import

import inspect
import json
import sys
import threading
import time
import uuid
import weakref

import cherrypy
from wok import asynctask, reqlogger
from wok.exception import WokException

try:
    text_type = unicode
except NameError:
    text_type = str

TASK = "TASK"
STARTED, COMPLETED, FAILED = 1000, 1001, 1002
WOK_COMPLETED, WOK_FAILED = 200, 400
CODE_STARTED = "WOKASYNC0000L"
CODE_REASON = "WOKTASK0001E"
CODE_KILLED = "WOKTASK0002E"
TEXT_CHARS = 4096
GAP = " [...] "
DEPTH = 20

WORKS = "starts and ends of tasks are logged with their ids"
UNKNOWN = "this Wok is not known (%s): Wok logs tasks as it does without this plug-in"

KNOWN = (
    (asynctask, "AsyncTask", "__init__", ["self", "target_uri", "fn", "opaque", "kill_cb"], None),
    (asynctask, "AsyncTask", "_run_helper", ["self", "opaque", "cb"], None),
    (asynctask, "AsyncTask", "_status_cb", ["self", "message", "success", "exception"], None),
    (asynctask, "AsyncTask", "_log", ["self", "code", "status", "exception"], None),
    (asynctask, "AsyncTask", "kill", ["self"], None),
    (reqlogger, "RequestRecord", "__init__", ["self", "message", "error", "id"], "kwargs"),
    (reqlogger, "RequestRecord", "log", ["self"], None),
)
"""Methods of Wok and their arguments, the same in 2.3.0, 2.3.1, 2.4.0, 2.5.0, 3.0.0 and master."""

local = threading.local()
complaints = set()


class Facts(object):
    """What is known of one task. Plain texts only: Wok keeps its tasks for twelve hours."""

    def __init__(self, request_id, parent_task_id):
        self.request_id = request_id
        self.parent_task_id = parent_task_id
        self.thread = None
        self.is_ended = False
        self.is_held = False
        self.held = None


class Callback(object):
    """What a task's function gets in the place of Wok's callback: it remembers the text of each report.

    Everything else that somebody may ask of it is the callback's own.
    """

    def __init__(self, callback):
        self.callback = callback

    def __getattr__(self, name):
        return getattr(self.callback, name)

    def __call__(self, *args, **kwargs):
        before = getattr(local, "text", None)
        local.text = args[0] if args else kwargs.get("message")
        try:
            return self.callback(*args, **kwargs)
        finally:
            local.text = before


class RequestId(object):
    """The id of a request's line, chosen before the line is written, and the thread that will write it."""

    def __init__(self):
        self.id = str(uuid.uuid4())
        self.thread = threading.current_thread()
        self.is_used = False


def facts_of_new_task():
    """Return the facts of a task that is about to be made in this thread."""
    parent = getattr(local, "task", None)
    if parent is not None:
        return Facts(parent._tasklog.request_id, parent.id)
    return Facts(request_id(cherrypy.serving.request), None)


def request_id(request):
    """Return the id of the line that this request will write, or None outside of any request."""
    if request is None or getattr(request, "app", None) is None:
        return None
    chosen = request.__dict__.get("_tasklog")
    if chosen is None:
        chosen = request._tasklog = RequestId()
    return chosen.id


def id_of_line(info):
    """Return the id for the line that this thread is about to write, or None: Wok makes one."""
    if info.get("req") == TASK:
        return None
    chosen = getattr(cherrypy.serving.request, "__dict__", {}).get("_tasklog")
    if chosen is None or chosen.is_used or chosen.thread is not threading.current_thread():
        return None
    chosen.is_used = True
    return chosen.id


def begin(task):
    """Log the start of a task, in its thread. Nested tasks that its function makes are known from now on."""
    facts = task._tasklog
    facts.thread = threading.current_thread()
    local.task = task
    write(task, CODE_STARTED, STARTED, None)


def report(task, code, status, exception):
    """Log what Wok wants to log of a task's end; False: Wok has to do it.

    A failure that the function itself reports from its own thread is held back until the function has ended:
    what it raises then says more ("OK" is the text of some).
    """
    facts = getattr(task, "_tasklog", None)
    if facts is None or status not in (WOK_COMPLETED, WOK_FAILED):
        return False
    if exception is not None and not isinstance(exception, WokException):
        return False
    if status == WOK_COMPLETED:
        if facts.is_held:
            release(task, facts.held)
        write(task, code, COMPLETED, None)
        return True
    raised = raised_by_function()
    error = error_of(exception if raised is None else raised, getattr(local, "text", None))
    if raised is None and facts.thread is threading.current_thread():
        facts.held = error or facts.held
        facts.is_held = True
        return True
    if raised is not None:
        facts.is_held = False
    write(task, code, FAILED, error)
    return True


def raised_by_function():
    """Return the exception of the task's function if Wok's own handler is what reports, else None.

    The traceback of an exception begins where it is handled.
    """
    _, error, trace = sys.exc_info()
    if error is None or trace is None or trace.tb_frame.f_code.co_name != "_run_helper":
        return None
    return error


def settle(task, callback, escaped):
    """Log the end of a task whose function has ended, if it is not logged yet and nobody can report it any more.

    `callback` is a weak reference to what the function got, None if it got Wok's own; `escaped` is an
    exception that Wok's handler does not take, or that it raised itself.
    """
    facts = task._tasklog
    facts.thread = None
    local.task = None
    if facts.is_held:
        release(task, error_of(original(escaped), None) if escaped is not None else facts.held)
    elif escaped is not None and not facts.is_ended:
        write(task, asynctask.MSG_FAILED, FAILED, error_of(original(escaped), None))
    elif not facts.is_ended and callback is not None and callback() is None:
        write(task, asynctask.MSG_SUCCESS, COMPLETED, None)


def release(task, error):
    """Log the failure that was held back."""
    write(task, asynctask.MSG_FAILED, FAILED, error)
    task._tasklog.is_held, task._tasklog.held = False, None


def original(error):
    """Return the function's own exception where Wok's handler has raised another one over it."""
    context = getattr(error, "__context__", None)
    trace = getattr(context, "__traceback__", None)
    if trace is not None and trace.tb_frame.f_code.co_name == "_run_helper":
        return context
    return error


def write(task, code, status, error):
    """Write one record of a task to the user request log. After the line, nothing raises."""
    facts = task._tasklog
    params = {"target_uri": task.target_uri, "task_id": task.id}
    if facts.request_id is not None:
        params["request_id"] = facts.request_id
    if facts.parent_task_id is not None:
        params["parent_task_id"] = facts.parent_task_id
    record = reqlogger.RequestRecord(
        {"code": code, "params": params}, None, app=task.app, req=TASK, status=status, user="", ip=""
    )
    record.error = error
    if status == STARTED:
        # A busy host may start the thread a while after the task was made.
        record.info.update(clock(task.timestamp))
    try:
        str(record)
    except BaseException:
        # Logging would lose the line with no more than a traceback on stderr.
        record.message["params"], record.error = encodable(params), encodable(error)
        str(record)
    record.log()
    if status != STARTED:
        facts.is_ended = True
        try:
            notify()
        except BaseException:
            pass


def clock(seconds):
    """Return date, time and zone of a moment as Wok writes them."""
    moment = time.localtime(seconds)
    formats = (("date", "TS_DATE_FORMAT"), ("time", "TS_TIME_FORMAT"), ("zone", "TS_ZONE_FORMAT"))
    return dict((name, time.strftime(getattr(reqlogger, form), moment)) for name, form in formats)


def notify():
    """Tell open pages that the log has a new record, as Wok does since 2.4.0."""
    send = getattr(reqlogger, "send_wok_notification", None)
    if send is not None:
        send("", "logs", "POST")


def error_of(exception, text):
    """Return the `error` of a record: of an exception, else of the text that the function has reported."""
    if isinstance(exception, WokException):
        return {"code": exception.code, "params": exception.params}
    if exception is not None:
        name = class_of(exception)
        return {"code": CODE_REASON, "params": {"err": short(text_of(exception)) or name, "type": name}}
    text = short(text_of(text)) if text is not None else ""
    return {"code": CODE_REASON, "params": {"err": text}} if text.strip() else None


def class_of(exception):
    """Return the name of an exception's class, with its module unless Python brings it."""
    module, name = type(exception).__module__, type(exception).__name__
    return name if module in ("builtins", "exceptions", "__main__") else "%s.%s" % (module, name)


def text_of(value):
    """Return a text for anything, whatever its own methods do."""
    for convert in (text_type, str):
        try:
            text = value if isinstance(value, (text_type, bytes)) else convert(value)
            return text if isinstance(text, text_type) else text.decode("utf-8", "replace")
        except BaseException:
            continue
    return "<unprintable %s object>" % type(value).__name__


def short(text):
    """Return the text, or head and tail of one that is longer than TEXT_CHARS."""
    if len(text) <= TEXT_CHARS:
        return text
    head = TEXT_CHARS // 2
    return text[:head] + GAP + text[len(text) - (TEXT_CHARS - head - len(GAP)) :]


def encodable(value, depth=0):
    """Return the value, or what comes near to it where JSON has no such value."""
    try:
        json.dumps(value)
    except BaseException:
        pass
    else:
        return value
    if depth < DEPTH and isinstance(value, dict):
        return dict((text_of(key), encodable(item, depth + 1)) for key, item in value.items())
    if depth < DEPTH and isinstance(value, (list, tuple)):
        return [encodable(item, depth + 1) for item in value]
    return short(text_of(value))


def complain(what):
    """Say once in wok-error.log that something in here has failed."""
    if what not in complaints:
        complaints.add(what)
        kind = sys.exc_info()[0]
        name = kind.__name__ if kind is not None else "no exception"
        cherrypy.log.error_log.error("tasklog: could not log %s (%s); Wok and its tasks go on" % (what, name))


def difference():
    """Return what of this Wok is not as in the known releases, or nothing."""
    names = inspect.getargspec if sys.version_info[0] == 2 else inspect.getfullargspec
    for module, class_name, method, arguments, keywords in KNOWN:
        found = names(vars(getattr(module, class_name))[method])
        if found[:3] != (arguments, None, keywords) or getattr(found, "kwonlyargs", None):
            return "%s.%s(%s)" % (class_name, method, ", ".join(found[0]))
    for module, name in ((asynctask, "MSG_SUCCESS"), (asynctask, "MSG_FAILED"), (reqlogger, "TS_ZONE_FORMAT")):
        if not hasattr(module, name):
            return "no %s" % name
    return "" if reqlogger.ASYNCTASK_REQUEST_METHOD == TASK else "ASYNCTASK_REQUEST_METHOD"


def wrappers(init, run, log, kill, init_record):
    """Return the methods that take the place of Wok's, which are given.

    Inside them, nothing but calls of Wok's own methods may raise. They use functions of this module inside a
    `try` alone; `quietly` is here for that reason.
    """

    def quietly(do, *args):
        try:
            do(*args)
        except BaseException:
            pass

    def said(what):
        complain(what)

    def __init__(self, *args, **kwargs):
        try:
            self._tasklog = facts_of_new_task()
        except BaseException:
            quietly(said, "the request of a task")
        return init(self, *args, **kwargs)

    def _run(self, opaque, cb):
        callback = escaped = None
        told = cb
        try:
            told = Callback(cb)
            callback = weakref.ref(told)
            begin(self)
        except BaseException:
            quietly(said, "the start of a task")
        try:
            try:
                run(self, opaque, told)
            except BaseException:
                escaped = sys.exc_info()[1]
                raise
        finally:
            told = None
            try:
                settle(self, callback, escaped)
            except BaseException:
                quietly(said, "the end of a task")
                facts = getattr(self, "_tasklog", None)
                if facts is not None and facts.is_held:
                    facts.is_held = False
                    quietly(log, self, asynctask.MSG_FAILED, WOK_FAILED)
            # An exception and this frame would keep each other, and the function's frames, for long.
            escaped = None

    def _log(self, code, status, exception=None):
        is_reported = False
        try:
            is_reported = report(self, code, status, exception)
        except BaseException:
            quietly(said, "the end of a task")
        if is_reported:
            return None
        facts = getattr(self, "_tasklog", None)
        if facts is not None:
            facts.is_ended = True
        return log(self, code, status, exception)

    def _kill(self):
        result = kill(self)
        try:
            if getattr(self, "_tasklog", None) is not None:
                write(self, asynctask.MSG_FAILED, FAILED, {"code": CODE_KILLED, "params": {}})
        except BaseException:
            quietly(said, "that a task was killed")
        return result

    def init_line(self, *args, **kwargs):
        try:
            if len(args) < 3 and kwargs.get("id") is None:
                chosen = id_of_line(kwargs)
                if chosen is not None:
                    kwargs["id"] = chosen
        except BaseException:
            quietly(said, "the id of a request")
        return init_record(self, *args, **kwargs)

    return __init__, _run, _log, _kill, init_line


def install():
    """Wrap the methods of Wok if it is a known one; return a sentence that says what was done. Never raises."""
    try:
        task, record = asynctask.AsyncTask, reqlogger.RequestRecord
        if getattr(task, "is_tasklog", False):
            return WORKS
        unknown = difference()
        if unknown:
            return UNKNOWN % unknown
        names = ((task, "__init__"), (task, "_run_helper"), (task, "_log"), (task, "kill"), (record, "__init__"))
        ours = wrappers(*[vars(cls)[name] for cls, name in names])
        for (cls, name), wrapper in zip(names, ours):
            setattr(cls, name, wrapper)
        task.is_tasklog = True
    except BaseException as error:
        return UNKNOWN % type(error).__name__
    return WORKS
