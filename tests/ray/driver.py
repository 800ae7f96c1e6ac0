"""A Ray cluster of three nodes on this machine, in a process of its own that is told what to do.

Each line of its stdin is a JSON list: a method and its arguments; each line of stdout its result.
It ends with its stdin, and everything it started ends with it.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray import serve
from ray._common.usage import usage_lib
from ray.cluster_utils import Cluster
from ray.serve._private import api as serve_api
from ray.serve.schema import ServeDeploySchema

MEMORY = 80 * 2**20
PATIENCE_S = 600.0
DASHBOARD = "--dashboard"
FRONT = ("head", "two", "spare")


class Driver:
    """The cluster, with nodes of these names; the first is the head."""

    def __init__(self, names: Sequence[str], *, dashboard: bool) -> None:
        serve_api.HTTP_PROXY_TIMEOUT = PATIENCE_S  # a minute is short for a busy machine
        self.serves = False
        self.cluster = Cluster(shutdown_at_exit=True)
        self.nodes = {
            name: self.cluster.add_node(
                **_room(name), include_dashboard=dashboard and name == names[0]
            )
            for name in names
        }
        ray.init(address=self.cluster.address, namespace="serve", log_to_driver=False)

    def deploy(self, file: str, settled: bool) -> dict[str, Any]:
        """Serve what a file says, and return once it is so, if it shall be settled."""
        config = ServeDeploySchema.model_validate(yaml.safe_load(Path(file).read_text()))
        self.serves = True
        client = serve_api.serve_start(
            http_options=config.http_options.model_dump(), proxy_location=config.proxy_location
        )
        client.deploy_apps(config, _blocking=False)
        if not settled:
            return self.status()
        time.sleep(1)  # before that, what is said is of the application before
        until_s = time.monotonic() + PATIENCE_S
        while not self.is_settled():
            assert time.monotonic() < until_s, (self.status(), serve.status().proxies)
            time.sleep(0.2)
        return self.status()

    def is_settled(self) -> bool:
        """Whether no deployment changes any more, nor any of the proxies that listen."""
        status = serve.status()
        app = status.applications.get("emberd")
        over = app and app.status.value in ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY")
        return bool(over) and {each.value for each in status.proxies.values()} <= {"HEALTHY"}

    def status(self) -> dict[str, Any]:
        """Return the application's state, and of each deployment its replicas by state."""
        app = serve.status().applications.get("emberd")
        if not app:
            return {"state": "", "message": "", "replicas": {}, "messages": {}}
        deployments = app.deployments.items()
        return {
            "state": str(app.status.value),
            "message": app.message,
            "replicas": {
                name: {str(getattr(k, "value", k)): n for k, n in each.replica_states.items()}
                for name, each in deployments
            },
            "messages": {name: each.message for name, each in deployments},
        }

    def replicas(self, deployment: str) -> list[int]:
        """Return the processes of a deployment's replicas."""
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"]
            and self._is_ours(process)
            and process.info["cmdline"][0].startswith(f"ray::ServeReplica:emberd:{deployment}")
            and process.status() != psutil.STATUS_ZOMBIE
        ]

    def workers(self, model: str) -> list[int]:
        """Return the worker processes of a model."""
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"]
            and process.info["cmdline"][-3:] == ["-m", "emberd.worker", model]
            and process.status() != psutil.STATUS_ZOMBIE
            and self._is_ours(process)
        ]

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a worker has this cluster's home: others on this machine have theirs."""
        try:
            return process.environ().get("EMBERD_HOME") == os.environ["EMBERD_HOME"]
        except psutil.Error:
            return False

    def nodes_of(self, deployment: str) -> list[str]:
        """Return the nodes that have a running replica of a deployment."""
        by_id = {node.node_id: name for name, node in self.nodes.items()}
        details = serve_api._get_global_client().get_serve_details()
        replicas = details["applications"]["emberd"]["deployments"][deployment]["replicas"]
        return [by_id[each["node_id"]] for each in replicas if each["state"] == "RUNNING"]

    def kill_node(self, name: str) -> None:
        """Kill a node and everything on it at once, as a machine's end would."""
        for each in self._processes(name):
            each.kill()
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def add_node(self, name: str) -> None:
        """Start a node, as one more or in the place of one that was killed."""
        self.nodes[name] = self.cluster.add_node(**_room(name))

    def suspend_node(self, name: str) -> None:
        """Have a node answer nobody any more, as one does that is cut off from the network."""
        for each in self._processes(name):
            each.suspend()

    def kill_heads_store(self) -> None:
        """Kill the process that knows the cluster, which is on the head alone."""
        (store,) = self.nodes["head"].all_processes["gcs_server"]
        psutil.Process(store.process.pid).kill()
        self.serves = False  # nobody is left whom to tell to end it

    def _processes(self, name: str) -> list[psutil.Process]:
        (raylet,) = self.nodes[name].all_processes["raylet"]
        process = psutil.Process(raylet.process.pid)
        return [process, *process.children(recursive=True)]

    def listening(self) -> dict[str, Any]:
        """Return where the dashboard listens, and what the processes were told."""
        return {
            "dashboard": self.cluster.webui_url,
            "usage": usage_lib.usage_stats_enabled(),
            "gcs": self.cluster.address,
        }

    def close(self) -> None:
        """End everything."""
        if self.serves:
            serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()


def _room(name: str) -> dict[str, Any]:
    """Return what a node has; what is to be on some nodes alone takes a part of `front`."""
    resources = {name: 1} | ({"front": 1} if name in FRONT else {})
    return {"num_cpus": 4, "object_store_memory": MEMORY, "resources": resources}


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints
    names = [name for name in sys.argv[1:] if name != DASHBOARD]
    driver = Driver(names, dashboard=DASHBOARD in sys.argv)
    try:
        print(json.dumps("ready"), file=out, flush=True)
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            print(json.dumps(getattr(driver, method)(*arguments)), file=out, flush=True)
    finally:
        driver.close()


if __name__ == "__main__":
    main()
