"""Autobahn's own `wstest`, for Python 2.7: its fuzzing server listens on 127.0.0.1, not everywhere."""

import functools

from autobahntestsuite import wstest  # first: it chooses the reactor
from autobahntestsuite import fuzzing

fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
wstest.run()
