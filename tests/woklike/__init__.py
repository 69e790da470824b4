"""A stand-in for the parts of Wok that its plug-in `tasklog` touches, and the scenes that are played on it.

Wok is in no package registry, so `make test` cannot install it. `wok/` has the names, the arguments and the
behaviour of Wok 3.0.0, written anew, with CherryPy's own request objects and real threads; `python2/scenes.py` runs
on it, and on real Wok of any release (tests/e2e/test_wok.py, which also compares the two). The other files of `python2/`
start a real Wok on loopback, with a plug-in that makes tasks.
"""
