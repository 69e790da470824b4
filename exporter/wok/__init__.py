"""Facts about Wok and its plug-ins: operations, messages, and the formats of its other logs."""
