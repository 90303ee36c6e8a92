"""Runs COMMAND and stands between it and whoever started this: recorder.py DIR COMMAND [ARG...]

Copies raw bytes both ways and keeps them: DIR/PID.in is what COMMAND was sent, DIR/PID.out what it said, DIR/PID.exit
how it ended. It knows nothing of messages, so what it keeps is what was on the wire. Standard library only.
"""

import os
import signal
import subprocess
import sys
import threading


def copy(source, log, sink):
    """Moves bytes from one descriptor to the other until the source ends; each byte is logged before it moves on."""
    while chunk := os.read(source, 65536):
        os.write(log, chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(sink, view) :]


def feed(child, log):
    try:
        copy(0, log, child.stdin.fileno())
    except OSError:
        pass  # the command is gone; its exit says the rest
    child.stdin.close()


def main():
    directory, command = sys.argv[1], sys.argv[2:]
    stem = os.path.join(directory, str(os.getpid()))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    sent, said = (os.open(stem + end, flags, 0o600) for end in (".in", ".out"))
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    # Whoever started us believes we are the command: what it tells us is meant for that.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: child.send_signal(number))
    threading.Thread(target=feed, args=(child, sent), daemon=True).start()
    try:
        copy(child.stdout.fileno(), said, 1)
    except OSError:
        child.terminate()  # nobody listens any more
    code = child.wait()
    with open(stem + ".exit", "w") as file:
        file.write(f"{code}\n")
    os._exit(code if code >= 0 else 128 - code)


main()
