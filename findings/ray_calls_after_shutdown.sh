#!/usr/bin/env bash
# Ray 2.60.0: ray.kill and ray.get after ray.shutdown() start a second cluster, in any thread.
#
# Calls of Ray connect by themselves where nothing is connected: they start a cluster of this machine. Those that can
# only be about a cluster that is gone do so as well.
# Seen: an actor is made, Ray is shut down, and ray.kill(actor) or ray.get(reference) is called, in the main thread or
# in another: ray.is_initialized() is True again, of another session, with a raylet of its own; only then comes the
# error, that the handle or the reference is of no such session. The raylet ends with the thread that started it: after
# a call in a thread that has ended Ray holds itself for connected, to a cluster that is dead.
# With RAY_ENABLE_AUTO_CONNECT=0, set before ray is imported, there is an error and no cluster.
# Guess: after shutdown() such a call raises, and starts nothing.
# Hurts: drivers whose clean-up runs twice, or that are interrupted while threads of theirs still wait for actors: a
# cluster that nobody asked for takes this machine's cores and memory, or is dead, and the process does not end.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet ray==2.60.0 psutil==7.2.2
cd "$folder"
cat > asked.py <<'PYTHON'
import threading

import psutil
import ray


@ray.remote
class Worker:
    def ready(self):
        return True


def raylets():
    return sum("raylet" in child.name() for child in psutil.Process().children() if child.status() != "zombie")


def called(call):
    try:
        call()
    except Exception as error:
        print("#  ", type(error).__name__)


def after_shutdown(what, in_thread):
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    worker = Worker.remote()
    reference = worker.ready.remote()
    ray.get(reference)
    ray.shutdown()
    call = (lambda: ray.kill(worker)) if what == "kill" else (lambda: ray.get(reference, timeout=20))
    if in_thread:
        thread = threading.Thread(target=called, args=(call,))
        thread.start()
        thread.join()
    else:
        called(call)
    seen = ray.is_initialized(), raylets()
    print(f"# ray.{what} in {'a thread' if in_thread else 'the main thread'}: initialized {seen[0]}, raylets {seen[1]}")
    ray.shutdown()
    return seen


print("# ray", ray.__version__)
found = {(what, in_thread): after_shutdown(what, in_thread) for what in ("kill", "get") for in_thread in (False, True)}
main, other = (sorted({seen for (_, apart), seen in found.items() if apart == where}) for where in (False, True))
print(f"= main thread {main}, a thread {other}")
PYTHON
export RAY_USAGE_STATS_ENABLED=0
for connect in 1 0; do
    echo "# RAY_ENABLE_AUTO_CONNECT=$connect"
    RAY_ENABLE_AUTO_CONNECT=$connect "$folder/venv/bin/python" asked.py 2> errors | tee "seen-$connect"
done
test "$(tail -n 1 seen-1)" = "= main thread [(True, 1)], a thread [(True, 0)]"
test "$(tail -n 1 seen-0)" = "= main thread [(False, 0)], a thread [(False, 0)]"
echo "as seen before"
