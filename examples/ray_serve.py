"""Handlens as a Ray Serve application: the same API and page, with as many copies of the model as you ask for.

    pip install 'handlens[serve]' 'ray[serve]'
    serve run ray_serve:application        # http://127.0.0.1:8000/v1

Each copy answers one question at a time; Ray gives a request to the one with the shortest queue, starts a dead one
again, and spreads copies over the machines of its cluster.
"""

import os

from ray import serve

MODEL = os.environ.get("HANDLENS_MODEL", "nano")
COPIES = int(os.environ.get("HANDLENS_COPIES", "2"))
CORES = float(os.environ.get("HANDLENS_CORES", "1"))


def build():
    """Return the server of one copy; runs where the copy runs."""
    import handlens
    from handlens.serve.app import build_app
    from handlens.serve.settings import ServerSettings

    # Ray's proxy stands in front, so the name in the request is the proxy's.
    return build_app(handlens.load(MODEL, keep=True), ServerSettings(allow_any_host=True))


@serve.deployment(num_replicas=COPIES, max_ongoing_requests=8, ray_actor_options={"num_cpus": CORES})
@serve.ingress(build)
class Handlens:
    """One copy of the model with its API."""


application = Handlens.bind()
