"""`make fleet`: the reference deployment, until Ctrl-C. SIGHUP restarts its servers one after the other."""

import signal

from tests.deployment import Deployment


def main() -> None:
    with Deployment() as deployment:
        for url in deployment.servers[0].urls:
            print(f"CLOUDINARY_URL={url.replace(deployment.servers[0].base, deployment.caddy.url)}")
        for server in deployment.servers:
            print(f"# {server.data_dir.name}: {server.base}, its log: {server.data_dir}.log")
        print(f"listening on {deployment.caddy.url}; SIGHUP restarts the servers, Ctrl-C ends it", flush=True)
        signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        while signal.sigwait(signals) is signal.SIGHUP:
            deployment.restart_one_after_the_other()
            print("restarted", flush=True)


main()
