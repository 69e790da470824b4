"""The messages of this plug-in's records, as Wok and wok-exporter look them up by code."""

import gettext

_ = gettext.gettext

messages = {
    "WOKASYNC0000L": _("Started task %(task_id)s: %(target_uri)s"),
    "WOKTASK0001E": _("%(err)s"),
    "WOKTASK0002E": _("A user killed the task"),
}
