"""Facts about Wok and its plug-ins: operations, message tables, sentences, restart marks."""
