"""Judges the command's HTTP: the conformance suite, real clients, those of one era before servers of the other, and the
faults that gateways are known for.

    drive.py CACHE [conformance] [clients] [era] [faults] [only WORD...]

CACHE is where `run` has put the peers; FRAMEWIRE the command. `only` leaves out the cases whose name has none of the words.
HTTP_GATEWAY is another gateway's command line (see rig.py), to see what the cases say of others. Standard library only.
"""

import importlib
import pathlib
import sys
import warnings

import rig

PARTS = ("conformance", "clients", "era", "faults")


def main():
    warnings.simplefilter("ignore", ResourceWarning)
    cache, *words = sys.argv[1:]
    only = words[words.index("only") + 1 :] if "only" in words else []
    words = words[: words.index("only")] if "only" in words else words
    parts = [word for word in words if word in PARTS] or PARTS
    rig.adopt()
    judge = rig.Rig(pathlib.Path(cache).resolve(), only)
    for part in parts:
        importlib.import_module(part).run(judge)
    print(f"{judge.passed} passed, {judge.failed} failed" + (f", {judge.skipped} skipped" if judge.skipped else ""))
    sys.exit(1 if judge.failed else 0)


main()
