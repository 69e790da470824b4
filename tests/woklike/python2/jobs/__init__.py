"""A plug-in of Wok for tests: POST /plugins/jobs/work {"name": NAME, "end": END} starts a task that ends so. Python 2.7 and 3."""
import time

from wok.asynctask import AsyncTask, tasks_queue
from wok.basemodel import BaseModel
from wok.config import PluginPaths
from wok.control.base import AsyncCollection
from wok.exception import OperationFailed
from wok.root import WokRoot

messages = {"JOBS0001L": "Do '%(name)s'", "JOBS0001E": "'%(name)s' was not done: %(err)s"}


def work(cb, params):
    time.sleep(float(params.get("seconds", 0)))
    end = params["end"]
    if end == "wok":
        raise OperationFailed("JOBS0001E", {"name": params["name"], "err": "it is broken"})
    if end == "plain":
        raise ValueError("no space left for %s" % params["name"])
    if end == "both":
        cb("OK", False)
        raise OperationFailed("JOBS0001E", {"name": params["name"], "err": "it is broken"})
    if end == "text":
        cb("giving up %s" % params["name"], False)
    elif end == "nested":
        AsyncTask("/plugins/jobs/inner/%s" % params["name"], work, dict(params, end="success")).thread.join(30)
        cb("OK", True)
    elif end == "success":
        cb("OK", True)


class WorkModel(object):
    def create(self, params):
        task = AsyncTask("/plugins/jobs/work/same", work, dict(params))
        return {"id": task.id, "status": task.status, "message": task.message, "target_uri": task.target_uri}

    def get_list(self):
        return sorted(tasks_queue)


class Work(AsyncCollection):
    def __init__(self, model):
        super(Work, self).__init__(model)
        self.log_map = {"POST": {"default": "JOBS0001L"}}


class Jobs(WokRoot):
    def __init__(self, options):
        model = BaseModel([WorkModel()])
        super(Jobs, self).__init__(model)
        self.work = Work(model)
        self.paths, self.domain, self.messages = PluginPaths("jobs"), "jobs", messages
        self.api_schema = {"type": "object"}
