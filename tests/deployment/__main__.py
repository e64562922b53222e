"""`make fleet`: the reference deployment, until Ctrl-C. SIGHUP restarts its servers one after the other."""

import signal
from queue import SimpleQueue

from tests.deployment import Deployment


def main() -> None:
    told = SimpleQueue[int]()
    with Deployment() as deployment:
        for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda number, _: told.put(number))  # servers would inherit a mask
        for url in deployment.servers[0].urls:
            print(f"CLOUDINARY_URL={url.replace(deployment.servers[0].base, deployment.caddy.url)}")
        for server in deployment.servers:
            print(f"# {server.data_dir.name}: {server.base}, its log: {server.data_dir}.log")
        print(f"listening on {deployment.caddy.url}; SIGHUP restarts the servers, Ctrl-C ends it", flush=True)
        while told.get() == signal.SIGHUP:
            deployment.restart_one_after_the_other()
            print("restarted", flush=True)


main()
