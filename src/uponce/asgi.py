"""A factory for ASGI servers: `uvicorn --no-proxy-headers --factory uponce.asgi:create_app`. Importing it does nothing.

Without `--no-proxy-headers`, uvicorn itself would trust any X-Forwarded-For from this machine.
"""

import gc
import multiprocessing
import signal

from uponce.adapters.logs import configure
from uponce.adapters.system import die_with, keep_heap
from uponce.config import load
from uponce.lifespan import lifespan
from uponce.web.app import App, TrustedProxies
from uponce.web.operators import Scrape
from uponce.web.pages.playground import Playground
from uponce.web.protocol import HardenedProtocol
from uponce.web.routes import create_app as create_web_app
from uponce.wiring import build, build_metrics


def create_app() -> App:
    """Return the application, set up from the environment."""
    settings = load()
    configure(settings.log_level, settings.log_format, settings.server_name)
    keep_heap()
    if settings.workers > 1:
        _die_with_parent()
    metrics = build_metrics(settings)
    backend = build(settings, metrics)
    scrape = None if metrics is None else Scrape(settings.metrics_token, metrics.text)
    proxies = TrustedProxies(settings.proxy_networks)
    HardenedProtocol.limits, HardenedProtocol.proxies = settings.limits, proxies
    playground = Playground(settings.playground == "local", settings.playground_bytes, settings.playground_keep_seconds)
    app = create_web_app(
        backend.services,
        lifespan(backend),
        settings.public_url,
        scrape,
        proxies,
        None if settings.playground == "off" else playground,
    )
    # All that is loaded by now stays, so garbage collection leaves it out. Each full collection, several a second under
    # load, took some 40 ms, in which no client got an answer.
    gc.collect()
    gc.freeze()
    return app


def _die_with_parent() -> None:
    """End this worker when its supervisor is killed: the worker must not hold the port any longer."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid is not None:
        die_with(supervisor.pid, signal.SIGTERM)
